//! Bytes as JSON's strings have them: base64 (RFC 4648, section 4).

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// What each letter means; padding is zero, and what is no letter more than 63.
const VALUES: [u8; 256] = {
    let mut values = [u8::MAX; 256];
    let mut value = 0;
    while value < ALPHABET.len() {
        values[ALPHABET[value] as usize] = value as u8;
        value += 1;
    }
    values[b'=' as usize] = 0;
    values
};

/// Bytes as text.
pub fn encode(bytes: &[u8]) -> String {
    let letters = |[a, b, c]: [u8; 3]| {
        let word = u32::from_be_bytes([0, a, b, c]);
        [18, 12, 6, 0].map(|place| ALPHABET[(word >> place) as usize & 63])
    };
    let mut text = vec![b'='; bytes.len().div_ceil(3) * 4];
    let (whole, rest) = bytes.as_chunks();
    let mut places = text.as_chunks_mut().0.iter_mut();
    for (chunk, place) in whole.iter().zip(&mut places) {
        *place = letters(*chunk);
    }
    if let (Some(place), Some((first, second))) = (places.next(), rest.split_first()) {
        let last: [u8; 4] = letters([*first, second.first().copied().unwrap_or(0), 0]);
        place[..=rest.len()].copy_from_slice(&last[..=rest.len()]);
    }
    String::from_utf8(text).expect("the alphabet is ASCII")
}

/// The bytes of all of a text; none if it is no base64.
pub fn decode(text: &str) -> Option<Vec<u8>> {
    let text = text.as_bytes();
    let padding = text.iter().rev().take_while(|letter| **letter == b'=').count();
    let (whole, []) = text.as_chunks::<4>() else { return None };
    // Padding in the middle would read as zeroes.
    if padding > 2 || text[..text.len() - padding].contains(&b'=') {
        return None;
    }
    let mut bytes = vec![0; whole.len() * 3];
    for (chunk, place) in whole.iter().zip(bytes.as_chunks_mut::<3>().0) {
        let values = chunk.map(|letter| u32::from(VALUES[usize::from(letter)]));
        if values.iter().any(|value| *value > 63) {
            return None;
        }
        let [_, a, b, c] = values.into_iter().fold(0, |word, value| word << 6 | value).to_be_bytes();
        *place = [a, b, c];
    }
    bytes.truncate(bytes.len() - padding);
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_written_as_the_rfc_says() {
        let examples = ["", "Zg==", "Zm8=", "Zm9v", "Zm9vYg==", "Zm9vYmE=", "Zm9vYmFy"];
        for (length, text) in examples.into_iter().enumerate() {
            assert_eq!(encode(&b"foobar"[..length]), text);
            assert_eq!(decode(text).unwrap(), b"foobar"[..length]);
        }
        assert_eq!(encode(&[0xfb, 0xff, 0xbf]), "+/+/");
    }

    #[test]
    fn what_was_written_is_read() {
        for length in 0..60u8 {
            let bytes: Vec<u8> = (0..length).map(|i| i.wrapping_mul(151)).collect();
            assert_eq!(decode(&encode(&bytes)).unwrap(), bytes);
        }
    }

    #[test]
    fn what_is_no_base64_is_nothing() {
        for text in ["A", "AA=A", "A===", "====", "A-AA", "=AAA", "AA==AAAA", "AAA\u{e9}"] {
            assert_eq!(decode(text), None, "{text}");
        }
    }
}
