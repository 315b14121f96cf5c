use std::hash::{BuildHasher, RandomState};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use crate::Prng;

/// The variable that runs one seed alone.
const SEED_VARIABLE: &str = "PADDOCK_SEED";

/// Checks a property with 64 fixed seeds and one that differs from run to run. See [`property_of`].
///
/// # Panics
/// When the property does.
pub fn property(name: &str, check: impl Fn(&mut Prng)) {
    property_of(name, 64, check);
}

/// Checks a property with the seeds 0 to `seeds` − 1 and one that differs from run to run. With
/// `PADDOCK_SEED=n` in the environment it runs that seed alone.
///
/// # Panics
/// When the property does, after its seed was printed.
pub fn property_of(name: &str, seeds: u64, check: impl Fn(&mut Prng)) {
    let chosen = std::env::var(SEED_VARIABLE).ok();
    for seed in seeds_to_run(chosen.as_deref(), seeds) {
        run(name, seed, &check);
    }
}

fn seeds_to_run(chosen: Option<&str>, seeds: u64) -> Vec<u64> {
    match chosen {
        Some(text) => {
            vec![text.parse().unwrap_or_else(|_| panic!("{SEED_VARIABLE}={text} is no seed"))]
        }
        // The hasher's keys are random: the one source that std has.
        None => (0..seeds).chain([RandomState::new().hash_one(0)]).collect(),
    }
}

fn run(name: &str, seed: u64, check: &impl Fn(&mut Prng)) {
    let outcome = catch_unwind(AssertUnwindSafe(|| check(&mut Prng::new(seed))));
    if let Err(panic) = outcome {
        eprintln!("property {name:?} fails; repeat it with {SEED_VARIABLE}={seed}");
        resume_unwind(panic);
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;

    #[test]
    fn fixed_seeds_and_one_random_seed_are_run() {
        let seen = RefCell::new(Vec::new());
        for seed in seeds_to_run(None, 5) {
            run("seeds", seed, &|prng| seen.borrow_mut().push(prng.seed()));
        }
        assert_eq!(seen.borrow()[..5], [0, 1, 2, 3, 4]);
        assert_eq!(seen.borrow().len(), 6);
    }

    #[test]
    fn one_seed_can_be_repeated_alone() {
        assert_eq!(seeds_to_run(Some("77"), 64), [77]);
    }

    #[test]
    #[should_panic(expected = "the property's own message")]
    fn a_failure_is_passed_on() {
        run("fails", 3, &|_| panic!("the property's own message"));
    }
}
