//! `reload_rejected`: a reload was asked for, and the proxy went on with what it had.

use super::definition::{Definition, Documentation, Facts, Weight};
use crate::model::{BY_FILES, Evidence, Finding, Kind, Severity};

pub(super) const DEFINITION: Definition = Definition {
    kind: Kind::ReloadRejected,
    severity: Weight::Always(Severity::Warning),
    explains: &[],
    prove: None,
    detect,
    sentence: |sentence| {
        let Evidence { failed, reason, .. } = sentence.evidence();
        let reason = match reason {
            Some(reason) if reason.starts_with(BY_FILES) => format!(" By its files, {reason}."),
            Some(reason) => format!(" nginx says: {reason}."),
            None => String::new(),
        };
        format!(
            "{failed} reload(s){} since {} brought no new worker; the old configuration is still in use.{reason}",
            sentence.of_proxy(),
            sentence.since(),
        )
    },
    advice: |_| "Run `nginx -t`, fix what it names, and reload again.".into(),
    documentation: Documentation {
        raised_when: "a reload brought no new worker",
        goes_when: "a reload does",
    },
};

fn detect(facts: &Facts<'_>) -> Vec<Finding> {
    let findings = facts.proxy.rejected.iter().map(|rejected| {
        let evidence = Evidence {
            failed: rejected.times,
            of: rejected.times,
            reason: rejected.reason.clone(),
            ..Evidence::default()
        };
        // Without a place: nginx says where it stumbles, and that is the line to blame.
        facts.at_proxy(Kind::ReloadRejected, rejected.first, evidence)
    });
    findings.collect()
}

#[cfg(test)]
mod tests {
    use crate::findings::scenes::check;

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
            scene.sentence(),
            "reload_rejected: 2 reload(s) since 14:30:00Z brought no new worker; the old configuration is still in use. nginx \
             says: unknown directive \"sever\" in /etc/nginx/nginx.conf:3. Run `nginx -t`, fix what it names, and reload \
             again."
        );
        let late = "rejected without reason\n=> reload_rejected\nreason known\n=>";
        assert_eq!(
            check("a reason that is known later", late).sentence(),
            "reload_rejected: 1 reload(s) since 14:30:00Z brought no new worker; the old configuration is still in use. nginx \
             says: unknown directive \"sever\" in /etc/nginx/nginx.conf:3. Run `nginx -t`, fix what it names, and reload \
             again."
        );
        check(
            "a reason of what is over",
            "rejected without reason\n=> reload_rejected\nreload 1\n=> not reload_rejected\nreason known\n=>",
        );
        check("then accepted", "rejected\n=> reload_rejected\nreload 1\n=> not reload_rejected");
        check(
            "the server is restarted",
            "rejected\n=> reload_rejected\nrestart\nreload 0\n=> not reload_rejected",
        );
        check("accepted", "config 0 api 5:8080\nconfig 1 api 5:8080\n=>");
    }
}
