//! Bytes looked at many at once.

/// How many bytes [`equal`] looks at.
pub const BLOCK: usize = 64;

/// Which bytes of a block are `byte`: one bit each, the lowest for the first.
#[inline(always)]
pub fn equal(block: &[u8; BLOCK], byte: u8) -> u64 {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: SSE2 is a part of x86_64; the build's target, which has no processor without it, is the keeper. The vectors are read from
    // parts of `block` that are as long as they are, by instructions that want no alignment.
    unsafe {
        use core::arch::x86_64::{_mm_cmpeq_epi8, _mm_loadu_si128, _mm_movemask_epi8, _mm_set1_epi8};
        let wanted = _mm_set1_epi8(byte as i8);
        let mut bits = 0;
        for (index, part) in block.as_chunks::<16>().0.iter().enumerate() {
            let equal = _mm_cmpeq_epi8(_mm_loadu_si128(part.as_ptr().cast()), wanted);
            bits |= u64::from(_mm_movemask_epi8(equal) as u16) << (index * 16);
        }
        bits
    }
    #[cfg(not(target_arch = "x86_64"))]
    one_by_one(block, byte)
}

/// The same for processors whose vectors nobody has written down here.
#[cfg(any(test, not(target_arch = "x86_64")))]
fn one_by_one(block: &[u8; BLOCK], byte: u8) -> u64 {
    block.iter().enumerate().fold(0, |bits, (index, known)| bits | u64::from(*known == byte) << index)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_bit_is_its_byte_s() {
        let mut block: [u8; BLOCK] = core::array::from_fn(|index| index as u8);
        assert_eq!(equal(&block, 0), 1);
        assert_eq!(equal(&block, 63), 1 << 63);
        assert_eq!(equal(&block, 64), 0);
        for round in 0..=u8::MAX {
            for (index, byte) in block.iter_mut().enumerate() {
                *byte = byte.wrapping_mul(5).wrapping_add(round ^ index as u8) | (round & 0x80);
            }
            for byte in 0..=u8::MAX {
                assert_eq!(equal(&block, byte), one_by_one(&block, byte), "{byte} in {block:?}");
            }
        }
    }
}
