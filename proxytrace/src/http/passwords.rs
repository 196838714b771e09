//! Users and their passwords (basic authentication, bcrypt). A check takes long on purpose, so it is done on a thread of its own, one at
//! a time; a password that was right is then recognized at once.

use std::{
    collections::{BTreeMap, HashMap},
    str::FromStr as _,
    sync::{Arc, Mutex, PoisonError},
    thread,
    time::{Duration, Instant},
};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use bcrypt::HashParts;
use ring::{
    hmac::{self, HMAC_SHA256},
    rand::SystemRandom,
};
use tokio::sync::{mpsc, oneshot};

/// So many checks wait; whoever comes then is asked to try again.
const MAX_WAITING: usize = 32;

/// A hash of a higher cost takes too long: each step doubles the time, and this one takes some seconds.
const MAX_COST: u32 = 16;

/// Below there is none: no password would ever be right.
const MIN_COST: u32 = 4;

/// The users of one configuration.
pub(super) struct Users {
    hashes: BTreeMap<String, String>,
    /// For a name that is unknown: it takes as long as one that is known.
    nobody: String,
    key: hmac::Key,
    /// Of each user: what the last right password is recognized by. The key is in this process alone.
    right: Mutex<HashMap<String, hmac::Tag>>,
}

impl std::fmt::Debug for Users {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Users").finish_non_exhaustive()
    }
}

impl Users {
    pub(super) fn new(hashes: BTreeMap<String, String>) -> Result<Self, String> {
        for (user, hash) in &hashes {
            let wrong = |why: &str| format!("basic_auth_users: {user}: {why}");
            if user.contains(':') {
                return Err(wrong("no client can send a name with a colon"));
            }
            let parts = HashParts::from_str(hash)
                .map_err(|_| wrong("not a bcrypt hash; `htpasswd -nBC 10 USER` makes one"))?;
            if parts.get_cost() < MIN_COST {
                return Err(wrong(&format!("bcrypt has no cost below {MIN_COST}")));
            }
            if parts.get_cost() > MAX_COST {
                return Err(wrong(&format!("a cost above {MAX_COST} takes too long to check")));
            }
        }
        let cost = hashes.values().filter_map(|hash| Some(HashParts::from_str(hash).ok()?.get_cost())).max();
        // 22 and 31 characters of bcrypt's alphabet: a salt, and a hash that no password is known to have.
        let nobody = format!("$2b${:02}${}{}", cost.unwrap_or_default(), ".".repeat(22), ".".repeat(31));
        let key = hmac::Key::generate(HMAC_SHA256, &SystemRandom::new())
            .map_err(|_| "basic_auth_users: no random numbers".to_owned())?;
        Ok(Self { hashes, nobody, key, right: Mutex::default() })
    }

    /// Whether it is the password that was right before, in a time that says nothing of it.
    fn is_known(&self, Given { user, password }: &Given) -> bool {
        let right = self.right.lock().unwrap_or_else(PoisonError::into_inner);
        right.get(user).is_some_and(|tag| hmac::verify(&self.key, password.as_bytes(), tag.as_ref()).is_ok())
    }

    /// Checks it. Takes long.
    fn check(&self, given: &Given) -> bool {
        let hash = self.hashes.get(&given.user);
        let is_right = bcrypt::verify(&given.password, hash.unwrap_or(&self.nobody)).unwrap_or(false);
        let is_right = is_right && hash.is_some();
        if is_right {
            let tag = hmac::sign(&self.key, given.password.as_bytes());
            self.right.lock().unwrap_or_else(PoisonError::into_inner).insert(given.user.clone(), tag);
        }
        is_right
    }
}

/// What a client says that it is.
struct Given {
    user: String,
    password: String,
}

/// The value of the header field `Authorization`.
fn parse(authorization: &str) -> Option<Given> {
    let (scheme, rest) = authorization.split_once(' ')?;
    let decoded = scheme.eq_ignore_ascii_case("basic").then(|| BASE64_STANDARD.decode(rest.trim()))?.ok()?;
    let (user, password) = std::str::from_utf8(&decoded).ok()?.split_once(':')?;
    Some(Given { user: user.to_owned(), password: password.to_owned() })
}

/// What comes of a check.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Right,
    Wrong,
    /// Too many wait.
    Busy,
}

/// Somebody whose password is to be checked.
pub struct Check {
    users: Arc<Users>,
    given: Given,
    answer: oneshot::Sender<bool>,
}

/// Has passwords checked.
#[derive(Clone, Debug)]
pub struct Passwords(mpsc::Sender<Check>);

impl Passwords {
    /// One that asks, and what [`check_passwords`] needs to answer it.
    #[must_use]
    pub fn new() -> (Self, mpsc::Receiver<Check>) {
        let (sender, receiver) = mpsc::channel(MAX_WAITING);
        (Self(sender), receiver)
    }

    /// Whether somebody is who they say.
    pub(super) async fn verdict(&self, users: &Arc<Users>, authorization: Option<&str>) -> Verdict {
        let Some(given) = authorization.and_then(parse) else { return Verdict::Wrong };
        if users.is_known(&given) {
            return Verdict::Right;
        }
        let (answer, checked) = oneshot::channel();
        if self.0.try_send(Check { users: Arc::clone(users), given, answer }).is_err() {
            return Verdict::Busy;
        }
        match checked.await {
            Ok(true) => Verdict::Right,
            Ok(false) => Verdict::Wrong,
            Err(_) => Verdict::Busy,
        }
    }
}

/// Answers until nobody can ask any more.
pub fn check_passwords(mut checks: mpsc::Receiver<Check>) {
    while let Some(Check { users, given, answer }) = checks.blocking_recv() {
        // Whoever asked is gone, and so is the connection.
        if answer.is_closed() {
            continue;
        }
        let started = Instant::now();
        // It may have become known while this waited.
        let is_right = users.is_known(&given) || users.check(&given);
        let _ = answer.send(is_right);
        // Checks take no more than half of a processor, however many guess.
        thread::sleep(started.elapsed().min(Duration::from_secs(1)));
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, sync::Arc, thread};

    use base64::{Engine as _, prelude::BASE64_STANDARD};

    use super::{Passwords, Users, Verdict, check_passwords, parse};

    /// The least that bcrypt allows.
    const COST: u32 = 4;

    fn users() -> Arc<Users> {
        let hash = bcrypt::hash("hunter2", COST).unwrap();
        Arc::new(Users::new(BTreeMap::from([("alice".to_owned(), hash)])).unwrap())
    }

    fn basic(text: &str) -> String {
        format!("Basic {}", BASE64_STANDARD.encode(text))
    }

    #[test]
    fn the_right_password_is_known_once_it_was_checked_and_no_other_ever_is() {
        let users = users();
        let (passwords, checks) = Passwords::new();
        let thread = thread::spawn(move || check_passwords(checks));
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let verdict = |text: &str| runtime.block_on(passwords.verdict(&users, Some(&basic(text))));
        let is_known = |text: &str| users.is_known(&parse(&basic(text)).unwrap());
        for wrong in ["alice:hunter3", "alice:", "bob:hunter2", ":", "alice"] {
            assert_eq!(verdict(wrong), Verdict::Wrong, "{wrong}");
        }
        assert!(!is_known("alice:hunter2"));
        assert_eq!(verdict("alice:hunter2"), Verdict::Right);
        assert!(is_known("alice:hunter2"));
        assert!(!is_known("alice:hunter3") && !is_known("bob:hunter2"));
        assert_eq!(verdict("alice:hunter3"), Verdict::Wrong);
        assert_eq!(runtime.block_on(passwords.verdict(&users, None)), Verdict::Wrong);
        assert_eq!(runtime.block_on(passwords.verdict(&users, Some("Bearer x"))), Verdict::Wrong);
        drop(passwords);
        thread.join().unwrap();
    }

    #[test]
    fn whoever_finds_too_many_before_is_asked_to_come_again() {
        let users = users();
        let (passwords, checks) = Passwords::new();
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let verdicts = runtime.block_on(async {
            let ask = |_| {
                let (users, passwords) = (Arc::clone(&users), passwords.clone());
                tokio::spawn(async move { passwords.verdict(&users, Some(&basic("alice:hunter2"))).await })
            };
            let asked: Vec<_> = (0..super::MAX_WAITING + 5).map(ask).collect();
            tokio::task::yield_now().await;
            // Nobody checks: those that wait are told so.
            drop(checks);
            let mut verdicts = Vec::new();
            for task in asked {
                verdicts.push(task.await.unwrap());
            }
            verdicts
        });
        assert!(verdicts.iter().all(|verdict| *verdict == Verdict::Busy));
    }

    #[test]
    fn hashes_that_are_none_or_cost_too_much_are_refused() {
        let refused =
            |hash: &str| Users::new(BTreeMap::from([("alice".to_owned(), hash.to_owned())])).unwrap_err();
        assert!(refused("hunter2").contains("alice: not a bcrypt hash"));
        let costly = bcrypt::hash("hunter2", COST).unwrap().replace("$04$", "$31$");
        assert!(refused(&costly).contains("takes too long"));
        let cheap = bcrypt::hash("hunter2", COST).unwrap().replace("$04$", "$03$");
        assert!(refused(&cheap).contains("no cost below 4"));
        let colon = Users::new(BTreeMap::from([("a:b".to_owned(), bcrypt::hash("x", COST).unwrap())]));
        assert!(colon.unwrap_err().contains("a:b: no client can send"));
    }

    #[test]
    fn an_unknown_user_takes_a_check_as_well() {
        let users = users();
        assert!(bcrypt::verify("hunter2", &users.nobody).is_ok_and(|is_right| !is_right));
        assert!(users.nobody.starts_with("$2b$04$"));
    }
}
