//! `reload_rejected`: a reload was asked for, and the proxy went on with what it had.

use super::proxy::Proxy;
use crate::model::{Evidence, Finding, Kind, Subject};

pub(super) fn find(proxy: &Proxy, found: &mut Vec<Finding>) {
    if let Some(rejected) = &proxy.rejected {
        found.push(Finding {
            subject: Subject {
                proxy: proxy.name.clone(),
                kind: Kind::ReloadRejected,
                upstream: None,
                address: None,
            },
            since: rejected.first,
            // nginx says where it stumbles, and that is the line to blame.
            place: None,
            evidence: Evidence {
                failed: rejected.times,
                of: rejected.times,
                reason: rejected.reason.clone(),
                ..Evidence::default()
            },
        });
    }
}

#[cfg(test)]
mod tests {
    use super::super::scenes::check;

    #[test]
    fn a_rejected_reload_is_found_until_one_is_accepted() {
        let scene = check(
            "asked for twice",
            "config 0 api 5:8080
             0 api 5:8080 established 1
             rejected
             => reload_rejected
             rejected
             90 x 0 api 5:8080 established 1
             wait 86400
             =>",
        );
        assert_eq!(
            scene.said(),
            "reload_rejected: 2 reload(s) since 14:30:00Z brought no new worker; the old configuration is still in use. nginx \
             says: unknown directive \"sever\" in /etc/nginx/nginx.conf:3. Run `nginx -t`, mend what it names, and reload \
             again."
        );
        check("then accepted", "rejected\n=> reload_rejected\nreload 1\n=> not reload_rejected");
        check(
            "the server is restarted",
            "rejected\n=> reload_rejected\nrestart\nreload 0\n=> not reload_rejected",
        );
        check("accepted", "config 0 api 5:8080\nconfig 1 api 5:8080\n=>");
    }
}
