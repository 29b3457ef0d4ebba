//! Lists of CPUs or memory nodes, `0-3,7`.

/// The most CPUs or nodes that a list may name; the kernel's largest configurations have 8,192 CPUs and 1,024 nodes.
const LIMIT: u32 = 65_536;

/// A list as a little-endian bit mask, bit n being member n; blanks around members are allowed.
///
/// # Errors
/// A sentence without the list itself.
pub fn parse_cpu_list(list: &str) -> Result<Vec<u8>, String> {
    let mut mask = Vec::new();
    for member in list.split(',') {
        let member = member.trim();
        let (first, last) = member.split_once('-').unwrap_or((member, member));
        let (first, last) = (number(first)?, number(last)?);
        if last < first {
            return Err(format!("range {member:?} runs backwards"));
        }
        if mask.len() <= last as usize / 8 {
            mask.resize(last as usize / 8 + 1, 0);
        }
        (first..=last).for_each(|bit| mask[bit as usize / 8] |= 1 << (bit % 8));
    }
    Ok(mask)
}

fn number(text: &str) -> Result<u32, String> {
    let text = text.trim();
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    match text.parse::<u32>() {
        Ok(number) if digits && number < LIMIT => Ok(number),
        Ok(_) if digits => Err(format!("{text} is larger than {}", LIMIT - 1)),
        _ => Err(format!("{text:?} is no number")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_becomes_a_mask() {
        assert_eq!(parse_cpu_list("0").unwrap(), [1]);
        assert_eq!(parse_cpu_list("0-3, 7").unwrap(), [0x8f]);
        assert_eq!(parse_cpu_list("8,1").unwrap(), [2, 1]);
    }

    #[test]
    fn a_bad_list_is_refused_with_its_member() {
        assert_eq!(parse_cpu_list("").unwrap_err(), "\"\" is no number");
        assert_eq!(parse_cpu_list("3-1").unwrap_err(), "range \"3-1\" runs backwards");
        assert_eq!(parse_cpu_list("+1").unwrap_err(), "\"+1\" is no number");
        assert_eq!(parse_cpu_list("70000").unwrap_err(), "70000 is larger than 65535");
        assert_eq!(parse_cpu_list("99999999999").unwrap_err(), "\"99999999999\" is no number");
    }
}
