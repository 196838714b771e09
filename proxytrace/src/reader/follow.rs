//! The error logs of the proxies that run: which are followed, and what the proxies say there of requests that fail before they connect.
//!
//! A process that has become the proxy's user opens them and hands them over, so nothing is read here that this user may not read. The
//! files stay open; once a second it is looked whether they have grown.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    fs::File,
    time::{Duration, Instant},
};

use procfs::process::Process;

use super::{
    holder::Owner,
    nginx::complaint,
    protocol::{Answer, Reply, Request},
    tail::{MAX_LOOK, Tail},
};
use crate::model::{Complaint, Lack};

/// How often logs are looked at.
pub(super) const LOOK: Duration = Duration::from_secs(1);

/// So many files are open at a time, of all owners and of one.
const MAX_FILES: usize = 256;
const MAX_FILES_OF_OWNER: usize = 128;

/// So many different words of a proxy are told apart at a look.
const MAX_WORDS: usize = 16;

/// A log that was moved away is read for so long: the proxy writes on until it is told to open another.
const MOVED_KEPT: Duration = Duration::from_secs(60);

/// When a log was moved away, the new one is looked for after so long, and then after twice as long each time.
const FIRST_TRY: Duration = Duration::from_secs(1);
const LAST_TRY: Duration = Duration::from_secs(60);

/// What the process has found that opens logs.
#[derive(Debug)]
pub(super) struct Opened {
    /// Whose logs.
    pub(super) request: Request,
    /// Who that is.
    pub(super) owner: Owner,
    /// The master.
    pub(super) master: u32,
    /// The names that its configuration has.
    pub(super) names: HashSet<String>,
    /// The logs.
    pub(super) files: Vec<File>,
}

/// The logs that are followed, by proxy.
#[derive(Debug, Default)]
pub(super) struct Followed(HashMap<u64, Log>);

#[derive(Debug)]
struct Log {
    request: Request,
    owner: Owner,
    master: Process,
    names: HashSet<String>,
    tails: Vec<Tail>,
    /// Those that were moved away, and since when.
    moved: Vec<(Tail, Instant)>,
    /// When the files are opened anew, where one was moved, and how long that was waited for.
    retry: Option<(Instant, Duration)>,
}

/// What a look has brought.
#[derive(Debug, Default)]
pub(super) struct Looked {
    /// What proxies said.
    pub(super) replies: Vec<Reply>,
    /// Whose logs are to be opened anew.
    pub(super) reopen: Vec<Request>,
}

impl Followed {
    /// Whether there is nothing to look at.
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Follows logs. What was followed of the same proxy before is read on where it is the same file.
    pub(super) fn note(&mut self, opened: Opened, now: Instant) {
        let Opened { request, owner, master, names, files } = opened;
        let proxy = request.id.proxy;
        let before = self.0.remove(&proxy);
        let Ok(master) = Process::new(master.cast_signed()) else { return };
        let is_first = before.is_none();
        let (mut old, mut moved, retry) =
            before.map_or_else(Default::default, |log| (log.tails, log.moved, log.retry));
        let mut tails = Vec::new();
        for file in files {
            // Of one that takes the place of another all is news.
            let Ok(tail) = Tail::new(file, is_first) else { continue };
            let known = old.iter().position(|known| known.inode() == tail.inode());
            let known = known.map(|at| old.swap_remove(at));
            moved.retain(|(moved, _)| moved.inode() != tail.inode());
            let has_place = self.files() + tails.len() < MAX_FILES
                && self.files_of(owner) + tails.len() < MAX_FILES_OF_OWNER;
            if let Some(tail) = known.or_else(|| has_place.then_some(tail)) {
                tails.push(tail);
            }
        }
        moved.extend(old.into_iter().map(|tail| (tail, now)));
        let retry = retry.filter(|_| tails.iter().any(Tail::is_moved) || tails.is_empty());
        if !tails.is_empty() || !moved.is_empty() {
            self.0.insert(proxy, Log { request, owner, master, names, tails, moved, retry });
        }
    }

    fn files(&self) -> usize {
        self.0.values().map(|log| log.tails.len() + log.moved.len()).sum()
    }

    fn files_of(&self, owner: Owner) -> usize {
        let own = self.0.values().filter(|log| log.owner == owner);
        own.map(|log| log.tails.len() + log.moved.len()).sum()
    }

    /// Reads what was added to the logs.
    pub(super) fn look(&mut self, now: Instant) -> Looked {
        self.0.retain(|_, log| log.master.is_alive());
        let mut times: HashMap<(u64, u64), usize> = HashMap::new();
        for tail in self.0.values().flat_map(|log| &log.tails) {
            *times.entry(tail.inode()).or_default() += 1;
        }
        let is_shared = |inode: (u64, u64)| times.get(&inode).is_some_and(|times| *times > 1);
        let mut looked = Looked::default();
        for log in self.0.values_mut() {
            let (complaints, skipped_bytes) = log.look(is_shared);
            if !complaints.is_empty() || skipped_bytes > 0 {
                let answer = Answer::Complaints { complaints, skipped_bytes };
                looked.replies.push(Reply { id: log.request.id, owner: log.owner, answer });
            }
            log.moved.retain(|(_, since)| now.duration_since(*since) < MOVED_KEPT);
            looked.reopen.extend(log.is_due(now).then(|| log.request.clone()));
        }
        looked
    }
}

impl Log {
    /// What the proxy said since the last look, and how many bytes were skipped.
    fn look(&mut self, is_shared: impl Fn((u64, u64)) -> bool) -> (Vec<Complaint>, u64) {
        let mut said: BTreeMap<(Lack, String), u64> = BTreeMap::new();
        let (mut budget, mut skipped) = (MAX_LOOK, 0_u64);
        let mut workers = Workers { master: &self.master, known: HashMap::new() };
        for tail in self.moved.iter_mut().map(|(tail, _)| tail).chain(&mut self.tails) {
            let Ok(added) = tail.look(budget) else { continue };
            budget -= added.lines.iter().map(|line| line.len() as u64).sum::<u64>().min(budget);
            skipped += added.skipped;
            for line in &added.lines {
                let Some(one) = complaint::said(line) else { continue };
                let is_own = !is_shared(tail.inode()) || workers.has(one.pid);
                let is_meant = one.name.is_none_or(|name| self.names.contains(&name.to_ascii_lowercase()));
                if !is_own || !is_meant {
                    continue;
                }
                let key = (one.lack, one.words.to_owned());
                let is_known = said.contains_key(&key);
                let of_lack = said.keys().find(|(lack, _)| *lack == one.lack).cloned();
                let key = if is_known || said.len() < MAX_WORDS { Some(key) } else { of_lack };
                if let Some(key) = key {
                    *said.entry(key).or_default() += 1;
                }
            }
        }
        let complaints =
            said.into_iter().map(|((lack, words), times)| Complaint { lack, words: words.into(), times });
        (complaints.collect(), skipped)
    }

    /// Whether its files are to be opened anew now.
    fn is_due(&mut self, now: Instant) -> bool {
        if !self.tails.iter().any(Tail::is_moved) && !self.tails.is_empty() {
            self.retry = None;
            return false;
        }
        let (due, waited) = *self.retry.get_or_insert((now + FIRST_TRY, FIRST_TRY));
        let is_due = now >= due;
        if is_due {
            let waited = (waited * 2).min(LAST_TRY);
            self.retry = Some((now + waited, waited));
        }
        is_due
    }
}

/// The processes of one master, where another proxy writes to the same log.
struct Workers<'a> {
    master: &'a Process,
    known: HashMap<i32, bool>,
}

impl Workers<'_> {
    /// Whether a process, as it calls itself, is one. In another pid namespace than this one that is not known.
    fn has(&mut self, pid: i32) -> bool {
        let master = self.master;
        *self.known.entry(pid).or_insert_with(|| {
            let is_here = master.status().is_ok_and(|status| status.nspid.is_none_or(|pids| pids.len() == 1));
            let parent = || Process::new(pid).and_then(|process| process.stat()).map(|stat| stat.ppid);
            !is_here || pid == master.pid() || parent().is_ok_and(|parent| parent == master.pid())
        })
    }
}

#[cfg(test)]
mod tests {
    use std::{
        fs::{self, File, OpenOptions},
        io::Write as _,
        path::Path,
        time::{Duration, Instant},
    };

    use super::{Answer, Complaint, Followed, LAST_TRY, Lack, Opened, Owner};
    use crate::reader::{protocol::Question, tests::request};

    const BIND: &str = "[crit] 9#9: *7 bind(10.0.0.9) failed (99: Cannot assign requested address) while connecting to upstream, client: x";

    fn write(path: &Path, lines: &[&str]) {
        let mut file = OpenOptions::new().append(true).create(true).open(path).unwrap();
        for line in lines {
            writeln!(file, "2026/11/25 14:30:02 {line}").unwrap();
        }
    }

    fn opened(proxy: u64, path: &Path) -> Opened {
        Opened {
            request: request(proxy, 0, Question::Log),
            owner: Owner::HOST_ROOT,
            master: std::process::id(),
            names: ["api.internal".to_owned()].into(),
            files: vec![File::open(path).unwrap()],
        }
    }

    fn said(followed: &mut Followed, now: Instant) -> Vec<(u64, Vec<(Lack, u64)>)> {
        let mut said: Vec<_> = followed
            .look(now)
            .replies
            .into_iter()
            .map(|reply| {
                let Answer::Complaints { complaints, .. } = reply.answer else { panic!("{reply:?}") };
                (
                    reply.id.proxy,
                    complaints.iter().map(|Complaint { lack, times, .. }| (*lack, *times)).collect(),
                )
            })
            .collect();
        said.sort();
        said
    }

    #[test]
    fn what_a_proxy_says_is_counted_by_its_words_wherever_its_log_goes() {
        let directory = tempfile::tempdir().unwrap();
        let (path, moved) = (directory.path().join("error.log"), directory.path().join("error.log.1"));
        write(&path, &[BIND]);
        let (mut followed, mut now) = (Followed::default(), Instant::now());
        followed.note(opened(1, &path), now);
        assert!(said(&mut followed, now).is_empty(), "what was there before is no news");
        write(
            &path,
            &[
                BIND,
                "[error] 9#9: *7 other.host could not be resolved (3: Host not found), client: x",
                BIND,
                "[error] 9#9: *7 API.internal could not be resolved (3: Host not found), client: x",
            ],
        );
        assert_eq!(said(&mut followed, now), [(1, vec![(Lack::LocalAddress, 2), (Lack::Address, 1)])]);

        fs::rename(&path, &moved).unwrap();
        write(&moved, &[BIND]);
        assert_eq!(said(&mut followed, now), [(1, vec![(Lack::LocalAddress, 1)])]);
        write(&path, &[BIND]);
        now += Duration::from_secs(2);
        assert_eq!(followed.look(now).reopen.len(), 1);
        assert!(followed.look(now).reopen.is_empty(), "not at once again");
        followed.note(opened(1, &path), now);
        write(&moved, &[BIND]);
        assert_eq!(
            said(&mut followed, now),
            [(1, vec![(Lack::LocalAddress, 2)])],
            "the old one and the new one"
        );
        now += LAST_TRY + Duration::from_secs(1);
        assert!(said(&mut followed, now).is_empty());
        assert_eq!(followed.files(), 1);
    }

    #[test]
    fn of_a_log_that_several_write_each_has_its_own_lines() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("error.log");
        write(&path, &[]);
        let (mut followed, now) = (Followed::default(), Instant::now());
        let mut other = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        followed.note(opened(1, &path), now);
        followed.note(Opened { master: other.id(), ..opened(2, &path) }, now);
        let own = BIND.replace("9#9", &format!("{0}#{0}", other.id()));
        write(&path, &[&own]);
        // The other is a child of this process, and so its worker as well.
        assert_eq!(
            said(&mut followed, now),
            [(1, vec![(Lack::LocalAddress, 1)]), (2, vec![(Lack::LocalAddress, 1)])]
        );
        write(&path, &[&BIND.replace("9#9", &format!("{0}#{0}", std::process::id()))]);
        assert_eq!(said(&mut followed, now), [(1, vec![(Lack::LocalAddress, 1)])]);
        other.kill().unwrap();
        other.wait().unwrap();
        assert!(said(&mut followed, now).is_empty());
        assert_eq!(followed.files(), 1, "the other has ended");
    }
}
