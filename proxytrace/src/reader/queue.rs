//! Who is served next: fair to proxies and to their owners, whatever others ask. Pure.
//!
//! Owners take turns, and so do the proxies of one. Where somebody waits for a place, a child that has had its time gives its own
//! up; how many places there are is in `places`.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    time::{Duration, Instant},
};

use super::{
    holder::Owner,
    pending::{Pending, Subject},
    places::{Capacity, FILES, Held, NAMES, Places},
    protocol::{Kind, Request},
};

/// How long the kernel takes to end a process, at most, where it can.
const KILL_TIMEOUT: Duration = Duration::from_secs(1);

/// For how many times as long as it took to read a proxy's configuration it is not read again, and the longest such time: a
/// storm of reloads takes no more than a part of a processor.
const REST_FACTOR: u32 = 2;
const MAX_REST: Duration = Duration::from_secs(4);

/// A child that was started.
pub(super) type Ticket = u64;

/// A question that is to be worked on now.
#[derive(Debug)]
pub(super) struct Job {
    pub(super) ticket: Ticket,
    pub(super) owner: Owner,
    pub(super) request: Request,
}

/// Questions that wait, and the children that work on others.
#[derive(Debug, Default)]
pub(super) struct Queue {
    waiting: HashMap<Owner, Pending>,
    /// Those who have something waiting, next first.
    turns: VecDeque<Owner>,
    children: HashMap<Ticket, Child>,
    /// One child of a proxy reads files, and one asks for names.
    busy: HashSet<(u64, bool)>,
    /// Proxies whose configurations were read a moment ago, and until when they are not read again.
    resting: HashMap<u64, Instant>,
    places: Places,
    next_ticket: Ticket,
}

#[derive(Debug)]
struct Child {
    owner: Owner,
    subject: Subject,
    since: Instant,
    reads_files: bool,
    /// It was asked to end then.
    dying: Option<Instant>,
    /// It did not.
    is_stuck: bool,
}

impl Child {
    const fn asks_names(&self) -> bool {
        asks_names(self.subject)
    }

    fn held(&self) -> Held {
        if self.is_stuck {
            return Held { stuck: 1, ..Held::default() };
        }
        Held { files: usize::from(self.reads_files), names: usize::from(self.asks_names()), stuck: 0 }
    }
}

const fn asks_names((_, kind): Subject) -> bool {
    matches!(kind, Kind::Addresses)
}

impl Queue {
    /// Lets a question wait for its turn. Gives it back where its owner gets no turn any more: see [`Self::note_stuck`].
    pub(super) fn push(&mut self, owner: Owner, request: Request) -> Result<(), Request> {
        if self.places.is_given_up(owner) {
            return Err(request);
        }
        let pending = self.waiting.entry(owner).or_default();
        if pending.is_empty() {
            self.turns.push_back(owner);
        }
        pending.push(request);
        Ok(())
    }

    /// The next question that there is a place for.
    pub(super) fn next(&mut self, now: Instant) -> Option<Job> {
        if !self.places.has_files() {
            return None;
        }
        for _ in 0..self.turns.len() {
            let owner = self.turns.pop_front()?;
            let mut pending = self.waiting.remove(&owner).unwrap_or_default();
            let has_files = self.places.has_files_of(owner);
            let has_names = self.places.has_names() && self.places.has_names_of(owner);
            let request = pending.take(|subject| {
                has_files && (has_names || !asks_names(subject)) && self.is_free(subject, now)
            });
            if !pending.is_empty() {
                self.waiting.insert(owner, pending);
                self.turns.push_back(owner);
            }
            if let Some(request) = request {
                return Some(self.start(owner, request, now));
            }
        }
        None
    }

    /// Whether nothing is done for the proxy that would be in the way.
    fn is_free(&self, subject: Subject, now: Instant) -> bool {
        let (proxy, kind) = subject;
        let rests = kind == Kind::Configuration && self.resting.get(&proxy).is_some_and(|until| *until > now);
        !rests && !self.busy.contains(&(proxy, asks_names(subject)))
    }

    fn start(&mut self, owner: Owner, request: Request, now: Instant) -> Job {
        let ticket = self.next_ticket;
        self.next_ticket += 1;
        let subject = request.subject();
        let child = Child { owner, subject, since: now, reads_files: true, dying: None, is_stuck: false };
        self.places.take(owner, child.held());
        self.busy.insert((subject.0, asks_names(subject)));
        self.children.insert(ticket, child);
        Job { ticket, owner, request }
    }

    /// A child has read all files that it needs, and only waits for name servers from now on.
    pub(super) fn note_files_read(&mut self, ticket: Ticket) {
        self.change(ticket, |child| child.reads_files = false);
    }

    /// A child was asked to end, by SIGKILL where it has not ended by itself.
    pub(super) fn note_dying(&mut self, ticket: Ticket, now: Instant) {
        self.change(ticket, |child| child.dying = child.dying.or(Some(now)));
    }

    /// A child was reaped.
    pub(super) fn note_ended(&mut self, ticket: Ticket, now: Instant) {
        let Some(child) = self.children.remove(&ticket) else { return };
        self.places.give_back(child.owner, child.held());
        let (proxy, kind) = child.subject;
        self.busy.remove(&(proxy, child.asks_names()));
        if kind == Kind::Configuration {
            let rest = (now - child.since).saturating_mul(REST_FACTOR).min(MAX_REST);
            self.resting.retain(|_, until| *until > now);
            self.resting.insert(proxy, now + rest);
        }
    }

    /// Notes which children do not end although they were asked to, and gives the questions that get no turn any more because
    /// their owner has as many of those as it may.
    pub(super) fn note_stuck(&mut self, now: Instant) -> Vec<Request> {
        let is_stuck =
            |child: &Child| !child.is_stuck && child.dying.is_some_and(|since| now - since >= KILL_TIMEOUT);
        let stuck: Vec<_> =
            self.children.iter().filter(|(_, child)| is_stuck(child)).map(|(ticket, _)| *ticket).collect();
        let mut refused = Vec::new();
        for ticket in stuck {
            self.change(ticket, |child| child.is_stuck = true);
            let Some(owner) = self.children.get(&ticket).map(|child| child.owner) else { continue };
            if self.places.is_given_up(owner)
                && let Some(mut pending) = self.waiting.remove(&owner)
            {
                self.turns.retain(|other| *other != owner);
                refused.extend(std::iter::from_fn(|| pending.take(|_| true)));
            }
        }
        refused
    }

    /// A child that is to give its place up: others wait for one, and it has had its time.
    pub(super) fn overdue(&self, now: Instant) -> Option<Ticket> {
        let waits = |is_such: &dyn Fn(Subject) -> bool, owner: &Owner| {
            let is_waiting = |subject| is_such(subject) && self.is_free(subject, now);
            self.waiting.get(owner).is_some_and(|pending| pending.has(is_waiting))
        };
        let files = |child: &Child| child.reads_files;
        let names = |child: &Child| child.asks_names();
        let waits_for_files: Vec<_> = self.turns.iter().filter(|owner| waits(&|_| true, owner)).collect();
        let waits_for_names: Vec<_> = self.turns.iter().filter(|owner| waits(&asks_names, owner)).collect();
        if !self.places.has_files() && !waits_for_files.is_empty() {
            return self.oldest(&FILES, now, &files, None);
        }
        if !self.places.has_names() && !waits_for_names.is_empty() {
            return self.oldest(&NAMES, now, &names, None);
        }
        let of_files = waits_for_files
            .into_iter()
            .filter(|owner| !self.places.has_files_of(**owner))
            .find_map(|owner| self.oldest(&FILES, now, &files, Some(*owner)));
        of_files.or_else(|| {
            let full = |owner: &&&Owner| !self.places.has_names_of(***owner);
            waits_for_names
                .iter()
                .filter(full)
                .find_map(|owner| self.oldest(&NAMES, now, &names, Some(**owner)))
        })
    }

    /// The child that has had its time, of the owner that holds most, and of those the one that has had most.
    fn oldest(
        &self,
        capacity: &Capacity,
        now: Instant,
        holds: &dyn Fn(&Child) -> bool,
        owner: Option<Owner>,
    ) -> Option<Ticket> {
        let is_candidate = |child: &Child| {
            holds(child)
                && child.dying.is_none()
                && now - child.since >= capacity.time
                && owner.is_none_or(|owner| owner == child.owner)
        };
        let candidates = self.children.iter().filter(|(_, child)| is_candidate(child));
        let held = |child: &Child| {
            let held = self.places.held_by(child.owner);
            held.files + held.names
        };
        candidates.max_by_key(|(_, child)| (held(child), now - child.since)).map(|(ticket, _)| *ticket)
    }

    /// Whether something waits, or is about to end: then this is to be asked again in a moment.
    pub(super) fn is_unsettled(&self) -> bool {
        !self.turns.is_empty() || self.children.values().any(|child| child.dying.is_some() && !child.is_stuck)
    }

    fn change(&mut self, ticket: Ticket, change: impl FnOnce(&mut Child)) {
        let Some(mut child) = self.children.remove(&ticket) else { return };
        let before = child.held();
        change(&mut child);
        self.places.give_back(child.owner, before);
        self.places.take(child.owner, child.held());
        self.children.insert(ticket, child);
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::{FILES, Held, Job, KILL_TIMEOUT, MAX_REST, NAMES, Owner, Queue};
    use crate::reader::{
        places::MAX_STUCK_OF_HOST_ROOT,
        protocol::{Question, Request},
        tests::{request, time_of_thread},
    };

    fn owner(uid: u32) -> Owner {
        Owner { uid, pid_namespace: 0 }
    }

    fn names() -> Question {
        Question::Addresses(Vec::new())
    }

    /// Asks, and must be let wait.
    fn ask(queue: &mut Queue, uid: u32, proxy: u64, question: Question) {
        queue.push(owner(uid), request(proxy, 0, question)).unwrap();
    }

    /// Starts whatever there is a place for.
    fn start(queue: &mut Queue, now: Instant) -> Vec<Job> {
        std::iter::from_fn(|| queue.next(now)).collect()
    }

    fn proxies(jobs: &[Job]) -> Vec<u64> {
        jobs.iter().map(|job| job.request.id.proxy).collect()
    }

    #[test]
    fn owners_take_turns_and_so_do_their_proxies() {
        let (mut queue, now) = (Queue::default(), Instant::now());
        for proxy in 1..=5 {
            ask(&mut queue, 1, proxy, Question::Configuration);
        }
        ask(&mut queue, 2, 9, Question::Configuration);
        let mut taken = Vec::new();
        loop {
            let jobs = start(&mut queue, now);
            let Some(job) = jobs.first() else { break };
            taken.extend(proxies(&jobs));
            assert!(queue.children.len() <= FILES.of_all);
            jobs.iter().for_each(|job| queue.note_ended(job.ticket, now));
            assert_eq!(queue.places.held_by(job.owner), Held::default());
        }
        assert_eq!(taken, [1, 9, 2, 3, 4, 5]);
    }

    #[test]
    fn a_proxy_has_one_child_that_reads_and_one_that_asks_for_names() {
        let (mut queue, now) = (Queue::default(), Instant::now());
        for question in [Question::Pod, Question::Configuration, names()] {
            ask(&mut queue, 1, 1, question);
        }
        let first = start(&mut queue, now);
        assert_eq!(
            first.iter().map(|job| &job.request.question).collect::<Vec<_>>(),
            [&Question::Pod, &names()]
        );
        queue.note_ended(first[0].ticket, now);
        assert_eq!(start(&mut queue, now)[0].request.question, Question::Configuration);
    }

    #[test]
    fn silent_name_servers_delay_no_other_proxy_of_the_same_owner() {
        let (mut queue, now) = (Queue::default(), Instant::now());
        for proxy in 1..=20 {
            ask(&mut queue, 1, proxy, names());
        }
        // Each reads its files at once, and waits from then on.
        let mut silent = 0;
        loop {
            let jobs = start(&mut queue, now);
            if jobs.is_empty() {
                break;
            }
            silent += jobs.len();
            jobs.iter().for_each(|job| queue.note_files_read(job.ticket));
        }
        assert_eq!(silent, NAMES.of_owner);
        // To read a configuration takes another kind of place.
        ask(&mut queue, 1, 99, Question::Configuration);
        let read = start(&mut queue, now);
        assert_eq!(proxies(&read), [99]);
        queue.note_ended(read[0].ticket, now);
        // And names get one as soon as somebody has had his time.
        assert_eq!(queue.overdue(now), None);
        for n in 0..12 {
            // Those that come after the first have their time as well.
            let later = now + NAMES.time * (n / NAMES.of_owner as u32 + 1);
            let ticket = queue.overdue(later).unwrap();
            queue.note_dying(ticket, later);
            assert_eq!(start(&mut queue, later).len(), 0, "the place is held until the child is reaped");
            queue.note_ended(ticket, later);
            let next = start(&mut queue, later);
            assert_eq!(next.len(), 1);
            queue.note_files_read(next[0].ticket);
        }
        assert_eq!(queue.overdue(now + NAMES.time * 9), None, "nobody waits any more");
    }

    #[test]
    fn children_that_do_not_end_are_two_of_their_owner_and_delay_nobody_else() {
        let (mut queue, now) = (Queue::default(), Instant::now());
        for proxy in 1..=5 {
            ask(&mut queue, 1, proxy, Question::Configuration);
        }
        let stuck = start(&mut queue, now);
        assert_eq!(stuck.len(), FILES.of_owner);
        for job in &stuck {
            queue.note_dying(job.ticket, now);
        }
        assert!(queue.note_stuck(now).is_empty());
        assert_eq!(proxies_of(&queue.note_stuck(now + KILL_TIMEOUT)), [3, 4, 5], "they get no turn");
        assert_eq!(
            queue.push(owner(1), request(6, 0, Question::Configuration)).map_err(|it| it.id.proxy),
            Err(6)
        );
        assert!(!queue.is_unsettled());
        for uid in 2..10 {
            for proxy in 0..2 {
                ask(&mut queue, uid, u64::from(uid) * 10 + proxy, Question::Configuration);
            }
        }
        assert_eq!(start(&mut queue, now).len(), FILES.of_all, "what is stuck takes no place of others");
        // It ended after all.
        queue.note_ended(stuck[0].ticket, now + KILL_TIMEOUT);
        ask(&mut queue, 1, 6, Question::Configuration);
    }

    #[test]
    fn children_of_the_hosts_root_that_do_not_end_hold_up_their_own_proxies_alone() {
        let (mut queue, now) = (Queue::default(), Instant::now());
        let ask = |queue: &mut Queue, proxy: u64| {
            queue.push(Owner::HOST_ROOT, request(proxy, 0, Question::Configuration)).map_err(|it| it.id.proxy)
        };
        for proxy in 1..=MAX_STUCK_OF_HOST_ROOT as u64 {
            ask(&mut queue, proxy).unwrap();
            for job in start(&mut queue, now) {
                queue.note_dying(job.ticket, now);
            }
            let refused = proxies_of(&queue.note_stuck(now + KILL_TIMEOUT));
            assert_eq!(refused.is_empty(), proxy < MAX_STUCK_OF_HOST_ROOT as u64, "{refused:?}");
            if proxy == 4 {
                ask(&mut queue, 100).unwrap();
                let honest = start(&mut queue, now);
                assert_eq!(honest.len(), 1);
                queue.note_ended(honest[0].ticket, now);
                ask(&mut queue, 4).unwrap();
                assert!(start(&mut queue, now).is_empty(), "its child still hangs");
            }
        }
        assert_eq!(ask(&mut queue, 200), Err(200));
    }

    fn proxies_of(requests: &[Request]) -> Vec<u64> {
        requests.iter().map(|request| request.id.proxy).collect()
    }

    #[test]
    fn who_holds_most_gives_up_a_place_for_others() {
        let (mut queue, now) = (Queue::default(), Instant::now());
        for (uid, proxy) in [(1, 1), (1, 2), (2, 3), (3, 4), (4, 5)] {
            ask(&mut queue, uid, proxy, Question::Configuration);
        }
        let jobs = start(&mut queue, now);
        assert_eq!(proxies(&jobs), [1, 3, 4, 5]);
        assert_eq!(queue.overdue(now + FILES.time / 2), None);
        assert!(queue.overdue(now + FILES.time).is_some());
        queue.note_ended(jobs[1].ticket, now);
        assert_eq!(proxies(&start(&mut queue, now)), [2]);
        ask(&mut queue, 5, 6, Question::Configuration);
        let overdue = queue.overdue(now + FILES.time).unwrap();
        assert_eq!(queue.children[&overdue].owner, owner(1));
    }

    #[test]
    fn a_configuration_that_takes_long_is_not_read_all_the_time() {
        let (mut queue, now) = (Queue::default(), Instant::now());
        ask(&mut queue, 1, 1, Question::Configuration);
        let job = start(&mut queue, now).remove(0);
        let end = now + Duration::from_millis(100);
        queue.note_ended(job.ticket, end);
        ask(&mut queue, 1, 1, Question::Configuration);
        assert!(start(&mut queue, end + Duration::from_millis(199)).is_empty());
        assert_eq!(start(&mut queue, end + Duration::from_millis(200)).len(), 1);
        assert!(MAX_REST < Duration::from_secs(10), "an answer is not waited for much longer");
    }

    #[test]
    fn the_next_of_many_is_found_without_looking_at_all_of_them() {
        let turn = |count: u32| {
            let (mut queue, now, start) = (Queue::default(), Instant::now(), time_of_thread());
            for proxy in 0..count {
                ask(&mut queue, proxy % 100, proxy.into(), Question::Configuration);
            }
            let mut turns = 0;
            while let Some(job) = queue.next(now) {
                queue.note_ended(job.ticket, now);
                turns += 1;
            }
            assert_eq!(turns, count);
            time_of_thread() - start
        };
        let (few, many) = (turn(2_000), turn(16_000));
        assert!(many < few * 8 * 5, "{few:?}, {many:?}");
    }
}
