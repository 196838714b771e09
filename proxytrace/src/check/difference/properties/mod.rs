//! What holds of every configuration: however it is rewritten without another meaning, nothing changes; whatever is mutated in what a
//! request meets, something does.

mod forms;
mod model;
mod mutation;
mod style;

use super::{Changes, between};
use crate::{
    check::{Subject, Version},
    nginx::tests::config,
};
use model::{Model, Random};
use mutation::MUTATIONS;
use proptest::test_runner::Config;
use style::Style;

/// What changes from one text to the other, where that nginx runs both.
fn changes(old: &str, new: &str, version: Option<Version>) -> Changes {
    let [old, new] = [old, new].map(|text| Subject::new(config(text)));
    between(&old, &new, version)
}

fn version(random: &mut Random) -> Option<Version> {
    [None, Some(Version::new(1, 22, 1)), Some(Version::new(1, 31, 5))][random.below(3)]
}

/// As many cases as in other properties, or fewer: each takes a while.
fn at_most(cases: u32) -> Config {
    let default = Config::default();
    Config { cases: cases.min(default.cases), max_shrink_iters: 0, failure_persistence: None, ..default }
}

proptest::proptest! {
    #![proptest_config(at_most(64))]

    #[test]
    fn whatever_keeps_the_meaning_changes_nothing(seed: u64) {
        let mut random = Random::new(seed);
        let model = Model::new(&mut random);
        let [old, new] = [(); 2].map(|()| Style::new(&mut random).written(&model, &mut random));
        let changes = changes(&old, &new, version(&mut random));
        proptest::prop_assert_eq!(changes, Changes::default(), "{}\n→\n{}", old, new);
    }
}

proptest::proptest! {
    #![proptest_config(at_most(8))]

    #[test]
    fn each_mutation_changes_something_in_its_group(seed: u64) {
        let mut random = Random::new(seed);
        for (name, group, mutate) in MUTATIONS {
            let model = Model::new(&mut random);
            let mut mutated = model.clone();
            mutate(&mut mutated, &mut random);
            proptest::prop_assert_ne!(&model, &mutated, "{}", name);
            let old = Style::new(&mut random).written(&model, &mut random);
            let new = Style::new(&mut random).written(&mutated, &mut random);
            for (old, new) in [(&old, &new), (&new, &old)] {
                let changes = changes(old, new, version(&mut random));
                let groups = changes.groups();
                let is_said = groups.iter().any(|(heading, lines)| heading == group && !lines.is_empty());
                proptest::prop_assert!(is_said, "{}: {:?}\n{}\n→\n{}", name, changes, old, new);
            }
        }
    }
}
