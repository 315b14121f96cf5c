//! The fuzz targets, on mutated recorded packets and on noise, from fixed seeds.

mod targets;

use zk_testkit::{Prng, property_of, vectors};

const FILES: &[&str] =
    &["connect", "election", "events", "multi", "quorum", "replies", "requests", "snapshot", "txn"];

fn recorded() -> Vec<Vec<u8>> {
    let dir = concat!(env!("CARGO_MANIFEST_DIR"), "/testdata");
    FILES
        .iter()
        .flat_map(|file| vectors::read(format!("{dir}/{file}.txt")))
        .map(|vector| vector.bytes.to_vec())
        .collect()
}

/// Some damage of the kinds that break decoders: flipped bits, wrong lengths, missing and doubled
/// parts, and pieces of another packet.
fn mutate(prng: &mut Prng, bytes: &mut Vec<u8>, other: &[u8]) {
    for _ in 0..=prng.index(3) {
        if bytes.is_empty() {
            bytes.extend(prng.bytes(4));
        }
        let at = prng.index(bytes.len());
        match prng.below(6) {
            0 => bytes[at] ^= 1 << prng.below(8),
            1 => bytes.truncate(at),
            2 => {
                let value = prng.edgy_i32().to_be_bytes();
                let end = (at + 4).min(bytes.len());
                bytes[at..end].copy_from_slice(&value[..end - at]);
            }
            3 => {
                let piece = bytes[at..].to_vec();
                bytes.extend(piece);
            }
            4 if !other.is_empty() => {
                let from = prng.index(other.len());
                bytes.splice(at.., other[from..].iter().copied());
            }
            _ => drop(bytes.drain(at..(at + 4).min(bytes.len()))), // the rest: cut a piece out
        }
    }
}

#[test]
fn mutated_packets_never_break_a_decoder() {
    let recorded = recorded();
    property_of("mutated packets", 1000, |prng| {
        for packet in &recorded {
            let mut bytes = packet.clone();
            let other = prng.pick(&recorded).clone();
            mutate(prng, &mut bytes, &other);
            for (_, target) in targets::ALL {
                target(&bytes);
            }
        }
    });
}

#[test]
fn recorded_packets_and_their_truncations_break_no_decoder() {
    for packet in recorded() {
        for len in (0..=packet.len()).rev().take(200) {
            for (_, target) in targets::ALL {
                target(&packet[..len]);
            }
        }
    }
}

#[test]
fn noise_breaks_no_decoder() {
    property_of("noise", 2000, |prng| {
        let len = prng.index(200);
        // Mostly small numbers: pure noise ends at the first length.
        let mut bytes = vec![0; len];
        for byte in &mut bytes {
            if prng.chance(30) {
                *byte = *prng.pick(&[1, 2, 5, 14, 31, 0x2f, 0x7f, 0x80, 0xff]);
            }
        }
        for (_, target) in targets::ALL {
            target(&bytes);
        }
    });
}
