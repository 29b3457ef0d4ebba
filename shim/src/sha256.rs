//! SHA-256 (FIPS 180-4): the name of a shim's socket is the digest of what it serves, as containerd's shims have it.

const K: [u32; 64] = {
    // The first 32 bits of the fractional parts of the cube roots of the first 64 primes, by integer arithmetic.
    let mut table = [0u32; 64];
    let mut prime = 2u128;
    let mut count = 0;
    while count < 64 {
        let mut divisor = 2;
        let mut is_prime = true;
        while divisor * divisor <= prime {
            if prime.is_multiple_of(divisor) {
                is_prime = false;
            }
            divisor += 1;
        }
        if is_prime {
            table[count] = root(prime, 3);
            count += 1;
        }
        prime += 1;
    }
    table
};

/// The first 32 bits of the fractional part of `number`'s square (2) or cube (3) root.
const fn root(number: u128, degree: u32) -> u32 {
    let target = number << (32 * degree);
    let (mut low, mut high) = (0u128, 1 << 40);
    while low + 1 < high {
        let middle = (low + high) / 2;
        let power = if degree == 2 { middle * middle } else { middle * middle * middle };
        if power <= target { low = middle } else { high = middle }
    }
    low as u32
}

/// The digest of `bytes` in lower-case hexadecimal.
pub fn hex_digest(bytes: &[u8]) -> String {
    let mut state: [u32; 8] = [2, 3, 5, 7, 11, 13, 17, 19].map(|prime| root(prime, 2));
    let mut message = bytes.to_vec();
    message.push(0x80);
    while message.len() % 64 != 56 {
        message.push(0);
    }
    message.extend_from_slice(&(bytes.len() as u64 * 8).to_be_bytes());
    for block in message.chunks_exact(64) {
        compress(&mut state, block);
    }
    state.iter().map(|word| format!("{word:08x}")).collect()
}

fn compress(state: &mut [u32; 8], block: &[u8]) {
    let mut w = [0u32; 64];
    for (word, bytes) in w.iter_mut().zip(block.chunks_exact(4)) {
        *word = u32::from_be_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
    }
    for i in 16..64 {
        let s0 = w[i - 15].rotate_right(7) ^ w[i - 15].rotate_right(18) ^ (w[i - 15] >> 3);
        let s1 = w[i - 2].rotate_right(17) ^ w[i - 2].rotate_right(19) ^ (w[i - 2] >> 10);
        w[i] = w[i - 16].wrapping_add(s0).wrapping_add(w[i - 7]).wrapping_add(s1);
    }
    let [mut a, mut b, mut c, mut d, mut e, mut f, mut g, mut h] = *state;
    for i in 0..64 {
        let s1 = e.rotate_right(6) ^ e.rotate_right(11) ^ e.rotate_right(25);
        let choice = (e & f) ^ (!e & g);
        let t1 = h.wrapping_add(s1).wrapping_add(choice).wrapping_add(K[i]).wrapping_add(w[i]);
        let s0 = a.rotate_right(2) ^ a.rotate_right(13) ^ a.rotate_right(22);
        let majority = (a & b) ^ (a & c) ^ (b & c);
        let t2 = s0.wrapping_add(majority);
        (h, g, f, e, d, c, b, a) = (g, f, e, d.wrapping_add(t1), c, b, a, t1.wrapping_add(t2));
    }
    for (word, value) in state.iter_mut().zip([a, b, c, d, e, f, g, h]) {
        *word = word.wrapping_add(value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digests_are_those_of_the_standard() {
        assert_eq!(hex_digest(b"abc"), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
        assert_eq!(hex_digest(b""), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
        assert_eq!(
            hex_digest(&[b'a'; 1000]),
            "41edece42d63e8d9bf515a9ba6932e1c20cbc9f5a5d134645adb5db1b9737ea3"
        );
    }
}
