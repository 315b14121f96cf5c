//! New sessions at a limited rate (`BlueThrottle`): a bucket of tokens, and if asked for a random drop
//! that sets in before the bucket is empty for good.

use std::hash::{BuildHasher, RandomState};
use std::sync::Mutex;

use zk_config::ConnectionThrottle;
use zk_proto::SessionId;

/// The bucket.
#[derive(Debug)]
pub(crate) struct Throttle {
    config: ConnectionThrottle,
    /// Whether new sessions are local.
    local_sessions: bool,
    level: Mutex<Level>,
    random: RandomState,
}

#[derive(Debug)]
struct Level {
    tokens: u32,
    filled_ms: i64,
    /// How likely a connection is refused, whatever the bucket holds.
    drop_chance: f64,
    adjusted_ms: i64,
    /// How often it was asked: what the random draws are made from.
    asked: u64,
}

impl Throttle {
    /// A full bucket.
    pub(crate) fn new(config: ConnectionThrottle, local_sessions: bool, now_ms: i64) -> Self {
        let level = Level {
            tokens: config.tokens,
            filled_ms: now_ms,
            drop_chance: 0.0,
            adjusted_ms: now_ms,
            asked: 0,
        };
        Self { config, local_sessions, level: Mutex::new(level), random: RandomState::new() }
    }

    /// Whether a client may begin a session (0), or take one up.
    pub(crate) fn admits(&self, session: SessionId, now_ms: i64) -> bool {
        let weight = match session {
            SessionId(0) if self.local_sessions => self.config.local_session_weight,
            SessionId(0) => self.config.global_session_weight,
            SessionId(_) => self.config.renew_session_weight,
        };
        let mut level =
            self.level.lock().expect("no holder of this lock panics: a panic ends the process");
        level.asked += 1;
        let draw = fraction(self.random.hash_one(level.asked));
        level.take(&self.config, weight, now_ms, draw)
    }
}

/// A number from 0 up to but not including 1.
#[allow(clippy::cast_precision_loss, reason = "53 bits fit")]
fn fraction(random: u64) -> f64 {
    (random >> 11) as f64 / (1u64 << 53) as f64
}

impl Level {
    fn take(&mut self, config: &ConnectionThrottle, weight: u32, now_ms: i64, draw: f64) -> bool {
        let waited = now_ms - self.filled_ms;
        if waited > i64::from(config.fill_time_ms) {
            let fills = waited.saturating_mul(config.fill_count.into())
                / i64::from(config.fill_time_ms.max(1));
            let tokens = i64::from(self.tokens).saturating_add(fills);
            self.tokens = u32::try_from(tokens).unwrap_or(u32::MAX).min(config.tokens);
            self.filled_ms = now_ms;
        }
        if let Some(freeze_ms) = config.freeze_time_ms {
            self.adjust(config, freeze_ms, now_ms);
            if draw < self.drop_chance {
                return false;
            }
        }
        if self.tokens < weight {
            return false;
        }
        self.tokens -= weight;
        true
    }

    /// An empty bucket makes a drop likelier; one that is full enough, less likely.
    fn adjust(&mut self, config: &ConnectionThrottle, freeze_ms: u32, now_ms: i64) {
        if now_ms - self.adjusted_ms <= i64::from(freeze_ms) {
            return;
        }
        self.adjusted_ms = now_ms;
        let missing = f64::from(config.tokens - self.tokens);
        if self.tokens == 0 {
            self.drop_chance = (self.drop_chance + config.drop_increase).min(1.0);
        } else if missing <= (f64::from(config.tokens) * config.decrease_ratio).round() {
            self.drop_chance = (self.drop_chance - config.drop_decrease).max(0.0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> ConnectionThrottle {
        ConnectionThrottle {
            tokens: 4,
            fill_time_ms: 10,
            fill_count: 1,
            freeze_time_ms: None,
            drop_increase: 0.5,
            drop_decrease: 0.25,
            decrease_ratio: 0.5,
            global_session_weight: 2,
            local_session_weight: 1,
            renew_session_weight: 1,
        }
    }

    #[test]
    fn tokens_are_used_up_and_come_back() {
        let throttle = Throttle::new(config(), false, 0);
        let [new, old] = [SessionId(0), SessionId(7)];
        assert!(throttle.admits(new, 0));
        assert!(throttle.admits(old, 0));
        assert!(!throttle.admits(new, 0), "one token is left");
        assert!(throttle.admits(old, 0));
        assert!(!throttle.admits(old, 10), "a refill comes after its time, not at it");
        assert!(throttle.admits(old, 11));
        assert!(throttle.admits(new, 1_000_000), "never more than the bucket holds");
        assert!(throttle.admits(new, 1_000_000));
        assert!(!throttle.admits(old, 1_000_000));
        assert!(throttle.admits(new, i64::MAX));
    }

    #[test]
    fn a_local_session_has_its_own_weight() {
        let throttle = Throttle::new(config(), true, 0);
        assert!((0..4).all(|_| throttle.admits(SessionId(0), 0)), "each takes one token");
        assert!(!throttle.admits(SessionId(0), 0));
    }

    #[test]
    fn an_empty_bucket_brings_random_drops_that_go_again() {
        let config = ConnectionThrottle { freeze_time_ms: Some(100), ..config() };
        let mut level =
            Level { tokens: 0, filled_ms: 101, drop_chance: 0.0, adjusted_ms: 0, asked: 0 };
        assert!(!level.take(&config, 1, 101, 0.9), "empty");
        assert!(level.drop_chance == 0.5);
        assert!(!level.take(&config, 1, 150, 0.4), "dropped, though there are tokens again");
        assert!(level.take(&config, 1, 150, 0.6));
        assert!(level.take(&config, 1, 301, 0.6), "full enough again");
        assert!(level.drop_chance == 0.25);
        assert!(level.take(&config, 1, 601, 0.1));
        assert!(level.drop_chance == 0.0);
    }
}
