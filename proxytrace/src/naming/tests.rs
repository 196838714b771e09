//! What connects are called, by what the reader answers.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use proxytrace_ebpf::abi::RowKey;

use super::{
    Naming,
    budget::{MAX_OF_OWNER, MAX_OF_PROXY},
    generations::{Asked, Generations, State},
};
use crate::{
    declared::{Configuration, Routes, Upstream},
    model::Address,
    nginx::tests::routes_of,
    reader::{Answer, GenerationId, Owner, Reply},
};

/// A proxy's generations, of which the configuration was asked for.
fn asked(ids: &[GenerationId]) -> Naming {
    let mut generations = Generations::default();
    ids.iter().for_each(|id| generations.set(*id, State::Asked(Asked::now(Vec::new()))));
    Naming {
        reader: None,
        config: None,
        resolves: true,
        generations,
        decided: HashMap::new(),
        undeclared: "undeclared".into(),
        unknown: "unknown".into(),
    }
}

const fn id(proxy: u64, generation: u32) -> GenerationId {
    GenerationId { proxy, generation }
}

fn reply(id: GenerationId, uid: u32, text: &str) -> Reply {
    let configuration = Configuration {
        path: "/etc/nginx/nginx.conf".into(),
        exe: "/usr/sbin/nginx".into(),
        routes: Arc::new(routes_of(text)),
        changed: None,
        resolved: HashMap::new(),
    };
    let owner = Owner { uid, pid_namespace: 0 };
    Reply { id, owner, answer: Answer::Configuration(Box::new(configuration)) }
}

/// What a row of the generation is called now; empty where that is not known.
fn name(naming: &mut Naming, id: GenerationId, address: &str) -> String {
    let address: Address = address.parse().unwrap();
    let row = RowKey { proxy: id.proxy, generation: id.generation, address: address.to_abi().unwrap() };
    naming.upstream(&row, &address).map_or_else(String::new, |name| name.to_string())
}

#[test]
fn what_was_read_for_a_generation_names_the_older_ones_that_were_not_read() {
    const TEXT: &str = "http { upstream api { server 10.0.0.5:80; } }";
    let mut naming = asked(&[id(1, 3), id(1, 4), id(1, 5), id(2, 3)]);
    naming.answer(reply(id(1, 4), 0, TEXT));
    assert_eq!(name(&mut naming, id(1, 3), "10.0.0.5:80"), "api");
    assert_eq!(name(&mut naming, id(1, 4), "10.0.0.5:80"), "api");
    assert_eq!(name(&mut naming, id(1, 5), "10.0.0.5:80"), "", "it is newer");
    assert_eq!(name(&mut naming, id(2, 3), "10.0.0.5:80"), "", "it is another");
    assert!(naming.configuration(id(1, 3)).is_some());
    // It stays as long as somebody uses it.
    naming.retain(&HashSet::from([id(1, 3)]), &HashSet::new());
    assert!(naming.is_asked(id(1, 3)));
    assert_eq!(name(&mut naming, id(1, 3), "10.0.0.6:80"), "undeclared");
    naming.retain(&HashSet::new(), &HashSet::new());
    assert!([id(1, 3), id(1, 4), id(1, 5), id(2, 3)].iter().all(|id| !naming.is_asked(*id)));
}

#[test]
fn why_a_configuration_cannot_be_read_holds_for_older_generations_as_well() {
    let mut naming = asked(&[id(1, 0), id(1, 1)]);
    let answer = Answer::Unreadable("no such file".to_owned());
    let learned = naming.answer(Reply { id: id(1, 1), owner: Owner::UNKNOWN, answer });
    assert_eq!(learned.problems, ["no such file; its upstreams are traced as \"unknown\""]);
    assert_eq!(name(&mut naming, id(1, 0), "10.0.0.5:80"), "unknown");
}

#[test]
fn a_proxys_oldest_generations_give_way_and_what_does_not_fit_is_unknown() {
    /// The same with one more upstream, whose name is as long as that.
    fn large(id: GenerationId, uid: u32, mark: &str, bytes: usize) -> Reply {
        let mut reply = reply(id, uid, &format!("http {{ upstream {mark} {{ server 10.0.0.6:80; }} }}"));
        if let Answer::Configuration(configuration) = &mut reply.answer {
            let mut routes = Routes::clone(&configuration.routes);
            routes.upstreams.push(Upstream {
                name: "a".repeat(bytes),
                peers: Vec::new(),
                ..routes.upstreams[0].clone()
            });
            configuration.routes = Arc::new(routes);
        }
        reply
    }
    let mut naming = asked(&[id(1, 0), id(1, 1), id(2, 0), id(3, 0)]);
    let two_thirds = MAX_OF_PROXY / 3 * 2;
    for generation in 0..2 {
        let learned = naming.answer(large(id(1, generation), 1, &format!("g{generation}"), two_thirds));
        assert!(learned.problems.is_empty(), "{:?}", learned.problems);
    }
    assert_eq!(name(&mut naming, id(1, 1), "10.0.0.6:80"), "g1");
    assert_eq!(name(&mut naming, id(1, 0), "10.0.0.6:80"), "unknown", "it was evicted");
    // Another of the same owner does not drive it out, another owner's is kept.
    let part = MAX_OF_OWNER / 10 * 6;
    let learned = naming.answer(large(id(2, 0), 1, "g2", part));
    assert!(
        learned.problems[0].contains("of all proxies of the same user at most 48 MiB"),
        "{:?}",
        learned.problems
    );
    assert_eq!(name(&mut naming, id(2, 0), "10.0.0.6:80"), "unknown");
    assert!(naming.answer(large(id(3, 0), 2, "g2", part)).problems.is_empty());
    assert_eq!(name(&mut naming, id(3, 0), "10.0.0.6:80"), "g2");
}
