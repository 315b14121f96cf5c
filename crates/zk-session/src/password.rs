use zk_proto::SessionId;
use zk_proto::connect::PASSWORD_LEN;

/// Upstream's `superSecret`.
const SUPER_SECRET: i64 = 0xB341_5C00;

/// The password of a session: the first 16 bytes of a `java.util.Random` seeded with the id, so every
/// server of an ensemble can check it (`ZooKeeperServer.generatePasswd`).
#[must_use]
pub fn password(id: SessionId) -> [u8; PASSWORD_LEN] {
    const MULTIPLIER: u64 = 0x5_DEEC_E66D;
    const MASK: u64 = (1 << 48) - 1;
    let mut state = ((id.0 ^ SUPER_SECRET).cast_unsigned() ^ MULTIPLIER) & MASK;
    let mut bytes = [0; PASSWORD_LEN];
    for chunk in bytes.chunks_exact_mut(4) {
        state = (state.wrapping_mul(MULTIPLIER).wrapping_add(0xB)) & MASK;
        let [.., a, b, c, d, _, _] = state.to_be_bytes();
        chunk.copy_from_slice(&[d, c, b, a]); // bits 16 to 47, the low byte first
    }
    bytes
}

/// Whether `given` is the session's password. Session 0 has none.
#[must_use]
pub fn check_password(id: SessionId, given: &[u8]) -> bool {
    id.0 != 0 && given == password(id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_is_what_java_random_is_known_to_yield() {
        // new Random(0): its first four ints are known everywhere.
        let ints = [-1_155_484_576, -723_955_400, 1_033_096_058, -1_690_734_402_i32];
        assert_eq!(password(SessionId(SUPER_SECRET)), ints.map(i32::to_le_bytes).concat()[..]);
    }

    #[test]
    fn a_password_is_made_step_by_step() {
        // new Random(0x100000000000001L ^ 0xB3415C00L).nextBytes(new byte[16]), computed step by step.
        let id = SessionId(0x0100_0000_0000_0001);
        let seed = u128::try_from(id.0 ^ SUPER_SECRET).unwrap();
        let mut state = (seed ^ 0x5DEECE66D) & ((1 << 48) - 1);
        let mut expected = Vec::new();
        for _ in 0..4 {
            state = (state * 0x5DEECE66D + 0xB) % (1 << 48);
            expected.extend_from_slice(&u32::try_from(state >> 16).unwrap().to_le_bytes());
        }
        assert_eq!(password(id)[..], expected);
        assert!(check_password(id, &expected));
        assert!(!check_password(id, &expected[..15]));
        assert!(!check_password(SessionId(0), &password(SessionId(0))));
    }
}
