// SPDX-License-Identifier: MIT
//! CRC32C, as the format has it everywhere.

use crc_fast::{CrcAlgorithm, Digest, crc32_iscsi};

/// Of these bytes.
pub(super) fn crc32c(bytes: &[u8]) -> u32 {
    crc32_iscsi(bytes)
}

/// Of what has the checksum `before`, and these pieces behind it.
pub(super) fn crc32c_after(before: u32, pieces: [&[u8]; 2]) -> u32 {
    // The state is what a checksum is before its bits are turned over.
    let mut digest = Digest::new_with_init_state(CrcAlgorithm::Crc32Iscsi, u64::from(!before));
    for piece in pieces {
        digest.update(piece);
    }
    u32::try_from(digest.finalize()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The library picks its code by the processor and by length: each length must be right, wherever it begins.
    #[test]
    fn it_is_the_checksum_that_another_implementation_computes() {
        assert_eq!(crc32c(b"123456789"), 0xe306_9283);
        let bytes: Vec<u8> =
            (0..6_000_u32).map(|n| n.wrapping_mul(2_654_435_761).to_be_bytes()[0]).collect();
        for len in (0..1_100).chain((1_100..5_800).step_by(61)) {
            for from in [0, 1, 7, 32, 63] {
                let piece = &bytes[from..from + len];
                assert_eq!(crc32c(piece), crc32c::crc32c(piece), "{len} from {from}");
                let (first, rest) = piece.split_at(len / 3);
                let before = crc32c::crc32c(&bytes[..from + 5]);
                let expected = crc32c::crc32c_append(before, piece);
                assert_eq!(crc32c_after(before, [first, rest]), expected, "{len} from {from}");
            }
        }
    }
}
