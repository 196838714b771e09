//! What is to be loaded is looked at: `check`, `nginx -t`, and a connect to each address of what changes.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use super::{Guard, Stop, beginning::changed};
use crate::{
    guard::{
        changes,
        known::{Configurations, Known, differences},
        preflight::{Fault, Nginx},
        probe,
        probed::Probed,
        verdict::Verdict,
    },
    watch::Running,
};

/// nginx reads its configuration within that, names among it.
const TESTING: Duration = Duration::from_secs(30);

impl Guard<'_> {
    /// What was wrong with the configurations before, so that it is not blamed on the change.
    pub(super) async fn faults(&mut self) -> BTreeMap<Arc<str>, Vec<Fault>> {
        let mut faults = BTreeMap::new();
        for running in self.watching.running().unwrap_or_default() {
            if let Ok(nginx) = Nginx::of(&running)
                && let Ok(Ok(disk)) = nginx.on_disk(nginx.shares_network).await
            {
                faults.insert(Arc::clone(&running.of.proxy), disk.errors);
            }
        }
        faults
    }

    pub(super) async fn look_at_what_is_to_be_loaded(
        &mut self,
        earlier: &BTreeMap<Arc<str>, Vec<Fault>>,
    ) -> Result<(), Stop> {
        let all = self.watching.running().map_err(anyhow::Error::from)?;
        // Of several, those of which nothing was changed are none of our business.
        let is_meant =
            |running: &&Running| all.len() == 1 || self.options.apply.is_some() || changed(running).is_some();
        for running in all.iter().filter(is_meant) {
            let nginx = match Nginx::of(running) {
                Ok(nginx) => nginx,
                Err(why) => {
                    self.report.notes.push(why);
                    continue;
                }
            };
            if nginx.is_replaced() {
                let proxy = &running.of.proxy;
                self.report.notes.push(format!(
                    "another program is in the place of the one that {proxy} runs: the one that runs has looked at the configuration"
                ));
            }
            let looked = async {
                let (disk, tested) = (nginx.on_disk(nginx.shares_network).await, nginx.tested(TESTING).await);
                (disk, tested)
            };
            let (disk, tested) = tokio::select! {
                looked = self.watching.during(looked) => looked?,
                signal = self.interrupts.next() => return Err(Stop::interrupted(signal)),
            };
            let known = earlier.get(&running.of.proxy).map(Vec::as_slice).unwrap_or_default();
            let is_new = |fault: &&Fault| !known.iter().any(|known| known.is_same(fault));
            let mut reasons: Vec<_> = tested.into_iter().collect();
            match &disk {
                Ok(Ok(disk)) => reasons.extend(disk.errors.iter().filter(is_new).map(Fault::in_words)),
                // In nginx's own words it is said already.
                Ok(Err(fault)) if reasons.is_empty() => reasons.push(fault.in_words()),
                Ok(Err(_)) => {}
                Err(error) => self.report.notes.push(format!("not checked: {error:#}")),
            }
            if !reasons.is_empty() {
                return Err(Stop(Verdict::Failed, reasons));
            }
            if let Ok(Ok(disk)) = disk {
                let known = Known { routes: Arc::new(disk.routes), addresses: disk.addresses };
                self.probe_beforehand(running, &known).await?;
            }
        }
        Ok(())
    }

    /// An upstream of which no address accepts a connect will not do so for requests.
    async fn probe_beforehand(&mut self, running: &Running, known: &Known) -> Result<(), Stop> {
        let proxy = &running.of.proxy;
        let before = self.before.get(proxy);
        let changed = known.changed(before);
        if !self.options.probes || changed.is_empty() {
            return Ok(());
        }
        if let Some(before) = before {
            let of = |known: &Known| Configurations::from([(Arc::clone(proxy), known.clone())]);
            self.report.changes = differences(&of(before), &of(known));
        }
        let pid = running.workers.first().copied().unwrap_or(running.master);
        let probing = probe::all(proxy, pid, changes::only(&known.routes, &changed), None);
        let probed = tokio::select! {
            probed = self.watching.during(probing) => probed?,
            signal = self.interrupts.next() => return Err(Stop::interrupted(signal)),
        };
        let probes = match probed {
            Ok(probes) => probes,
            Err(error) => {
                self.report.notes.push(format!("not probed: {error:#}"));
                return Ok(());
            }
        };
        let is_dead = |name: &&String| {
            let mut of = probes.iter().filter(|probe| probe.is_of(proxy, name)).peekable();
            of.peek().is_some() && of.all(|probe| !probe.is_well())
        };
        let dead: BTreeSet<_> = changed.iter().filter(is_dead).collect();
        let of_dead = |probe: &&Probed| dead.iter().any(|name| probe.is_of(proxy, name));
        let reasons: Vec<_> = probes.iter().filter(of_dead).map(Probed::to_string).collect();
        self.report.probes = probes;
        if reasons.is_empty() { Ok(()) } else { Err(Stop(Verdict::Failed, reasons)) }
    }
}
