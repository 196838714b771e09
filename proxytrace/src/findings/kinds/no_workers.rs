//! `no_workers`: a proxy had workers and has none, because a reload or a crash loop left none.

use super::definition::{Definition, Documentation, Facts, Weight};
use crate::model::{Evidence, Finding, Kind, LastExit, Severity};

pub(super) const DEFINITION: Definition = Definition {
    kind: Kind::NoWorkers,
    severity: Weight::Always(Severity::Critical),
    explains: &[],
    prove: None,
    detect,
    sentence: |sentence| {
        let Evidence { exit, reload, reason, .. } = sentence.evidence();
        let reload = reload
            .map_or_else(String::new, |reload| format!(", after the reload at {}", sentence.time(reload)));
        let exit = exit.as_ref().map_or_else(String::new, |LastExit { pid, code, signal }| {
            let how = match (signal, code) {
                (Some(signal), _) => format!("by signal {signal}"),
                (None, code) => format!("with exit code {}", code.unwrap_or(0)),
            };
            format!("; the last ({pid}) ended {how}")
        });
        let reason = reason.as_ref().map_or_else(String::new, |reason| format!(" It says: {reason}."));
        format!(
            "{} has no worker since {}{reload}, and answers nobody{exit}.{reason}",
            sentence.finding.subject.proxy,
            sentence.since(),
        )
    },
    advice: |finding| match finding.evidence.reload {
        Some(_) => {
            "Go back to the configuration before it and reload; the error log says what the workers lack."
                .into()
        }
        None => "Read the end of its error log, and restart it.".into(),
    },
    documentation: Documentation {
        raised_when: "a reload or crashes left no worker",
        goes_when: "a worker runs, or the proxy ends",
    },
};

/// Workers that end so soon after a reload were those of that reload.
const OF_RELOAD: jiff::SignedDuration = jiff::SignedDuration::from_mins(1);

fn detect(facts: &Facts<'_>) -> Vec<Finding> {
    let findings = facts.proxy.workers_gone.iter().map(|(since, gone)| {
        let reload = facts.proxy.generations.last_reload();
        let evidence = Evidence {
            exit: gone.exit.clone(),
            reason: gone.reason.clone(),
            reload: reload.filter(|reload| since.duration_since(*reload) < OF_RELOAD),
            ..Evidence::default()
        };
        facts.at_proxy(Kind::NoWorkers, *since, evidence)
    });
    findings.collect()
}

#[cfg(test)]
mod tests {
    use crate::findings::scenes::check;

    #[test]
    fn a_proxy_without_workers_answers_nobody() {
        let scene = check(
            "a reload whose workers cannot start",
            "config 0 api 5:8080
             5 x 0 api 5:8080 established 1
             reload 1
             workers gone 2
             => no_workers
             wait 3600
             =>",
        );
        assert_eq!(
            scene.sentence(),
            "no_workers: nginx has no worker since 14:30:02Z, after the reload at 14:30:01Z, and answers nobody; the last (9) \
             ended with exit code 2. Go back to the configuration before it and reload; the error log says what the workers \
             lack."
        );
        check(
            "the next reload has workers",
            "config 0 api 5:8080\nworkers gone 139\n=> no_workers\nreload 1\nworkers run\n=> not no_workers",
        );
    }
}
