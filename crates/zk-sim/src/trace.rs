//! What happened, as a hash for every run and in words for those who ask.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;

/// What becomes of the words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Words {
    /// They are not made.
    Off,
    /// The last so many are kept.
    Keep(usize),
    /// They are printed as they come.
    Print,
}

#[derive(Debug)]
struct Inner {
    hash: u64,
    steps: u64,
    words: Words,
    kept: VecDeque<String>,
}

/// The record of one run. Clones share it, so that it outlives a run that panics.
#[derive(Debug, Clone)]
pub struct Trace(Rc<RefCell<Inner>>);

impl Trace {
    /// An empty one.
    #[must_use]
    pub fn new(words: Words) -> Self {
        Self(Rc::new(RefCell::new(Inner {
            hash: 0xcbf2_9ce4_8422_2325,
            steps: 0,
            words,
            kept: VecDeque::new(),
        })))
    }

    /// Something happened: `what` goes into the hash.
    pub fn step(&self, what: [u64; 4]) {
        let mut inner = self.0.borrow_mut();
        inner.steps += 1;
        for word in what {
            inner.hash = (inner.hash ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29);
        }
    }

    /// Whether anybody wants words.
    #[must_use]
    pub fn wants_words(&self) -> bool {
        self.0.borrow().words != Words::Off
    }

    /// Says it in words.
    pub fn say(&self, now_us: i64, words: &str) {
        let line = format!("{:>11.6} {words}", now_us as f64 / 1e6);
        let mut inner = self.0.borrow_mut();
        match inner.words {
            Words::Off => {}
            Words::Print => println!("{line}"),
            Words::Keep(most) => {
                if inner.kept.len() == most {
                    inner.kept.pop_front();
                }
                inner.kept.push_back(line);
            }
        }
    }

    /// The hash of everything so far.
    #[must_use]
    pub fn hash(&self) -> u64 {
        self.0.borrow().hash
    }

    /// How much has happened.
    #[must_use]
    pub fn steps(&self) -> u64 {
        self.0.borrow().steps
    }

    /// The last words.
    #[must_use]
    pub fn kept(&self) -> Vec<String> {
        self.0.borrow().kept.iter().cloned().collect()
    }
}
