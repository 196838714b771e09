//! `reload_rejected`: a reload was asked for, and the proxy went on with what it had.

use super::{
    finding::{Evidence, Finding, Kind, Subject},
    history::Proxy,
};

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
