//! Where an object ends, found without reading it: 64 bytes at once.
//!
//! Which bytes lie in strings is the running exclusive or of where quotes are, so that no byte has to wait for the one before it. It is the
//! idea of simdjson's first stage (Langdale and Lemire, "Parsing Gigabytes of JSON per Second", 2019).

use cofferdam_sys::bytes::{BLOCK, equal};

/// How long the object is that `text` begins with. None if it has no end; if, up to the end of its block, there is a backslash; or if one of
/// its strings ends with `wanted`, which is not empty.
pub(crate) fn of_object(text: &[u8], wanted: &str) -> Option<usize> {
    let last = *wanted.as_bytes().last()?;
    let (blocks, tail) = text.as_chunks();
    let mut padded = [b' '; BLOCK];
    padded[..tail.len()].copy_from_slice(tail);
    let (mut depth, mut inside, mut last_before) = (0, 0, 0);
    for (index, block) in blocks.iter().chain([&padded]).enumerate() {
        let quotes = equal(block, b'"');
        let lasts = equal(block, last);
        let mut endings = quotes & (lasts << 1 | last_before);
        last_before = lasts >> (BLOCK - 1);
        while endings != 0 {
            let quote = index * BLOCK + endings.trailing_zeros() as usize;
            if text[..quote].ends_with(wanted.as_bytes()) {
                return None;
            }
            endings &= endings - 1;
        }
        if equal(block, b'\\') != 0 {
            return None;
        }
        let strings = xor_of_all_before(quotes) ^ inside;
        inside = ((strings as i64) >> (BLOCK - 1)) as u64;
        let opening = (equal(block, b'{') | equal(block, b'[')) & !strings;
        let closing = (equal(block, b'}') | equal(block, b']')) & !strings;
        let mut brackets = opening | closing;
        while brackets != 0 {
            let at = brackets.trailing_zeros();
            if opening >> at & 1 != 0 {
                depth += 1;
            } else {
                depth -= 1;
                if depth <= 0 {
                    return (depth == 0).then_some(index * BLOCK + at as usize + 1);
                }
            }
            brackets &= brackets - 1;
        }
    }
    None
}

/// In each bit the exclusive or of it and all below it.
fn xor_of_all_before(mut bits: u64) -> u64 {
    for distance in [1, 2, 4, 8, 16, 32] {
        bits ^= bits << distance;
    }
    bits
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_object_ends_where_its_first_brace_is_closed_wherever_blocks_begin() {
        for object in [
            "{}",
            r#"{"a": [1, {"b": "}{]["}], "c": {}, "d": "{{{{"}"#,
            r#"{"a": "][", "a long string that goes over the end of a block, with } in it and { and } and }": []}"#,
            "{[}]",
        ] {
            for blanks in 0..2 * BLOCK {
                let padded = object.replacen('{', &format!("{{{}", " ".repeat(blanks)), 1);
                for behind in ["", " ", "}}}", "\"{", &"x".repeat(100)] {
                    let text = format!("{padded}{behind}");
                    // a bracket for a brace is as good here
                    assert_eq!(of_object(text.as_bytes(), "WANTED"), Some(padded.len()), "{text}");
                    for end in 0..padded.len() {
                        assert_eq!(of_object(&text.as_bytes()[..end], "WANTED"), None, "{end} of {text}");
                    }
                }
            }
        }
    }

    #[test]
    fn a_string_that_is_wanted_is_found_wherever_it_lies() {
        for blanks in 0..2 * BLOCK {
            let text =
                |string: &str| format!("{{{}\"a\": \"{string}\"}}{}", " ".repeat(blanks), " ".repeat(BLOCK));
            assert_eq!(of_object(text("WANTED").as_bytes(), "WANTED"), None);
            assert_eq!(of_object(text("a \\u0057ANTE").as_bytes(), "WANTED"), None);
            for other in ["WANTED ", "ANTED", "wanted", "D", ""] {
                let text = text(other);
                assert_eq!(of_object(text.as_bytes(), "WANTED"), Some(text.len() - BLOCK), "{text}");
            }
        }
        assert_eq!(of_object(b"{}", ""), None);
        assert_eq!(of_object(b"}{", "x"), None);
    }
}
