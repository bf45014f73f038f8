//! Durations as MediaMTX writes them: Go's syntax, days allowed in front (`1d12h`, `1m30s`, `200ms`).

/// One day, nanoseconds.
const DAY_NS: i128 = 24 * 3600 * 1_000_000_000;

/// Parses to nanoseconds; `None` when the text is no duration or exceeds 292 years. Empty text is zero.
pub(super) fn parse_ns(text: &str) -> Option<i64> {
    let (days, rest, negative) = split_days(text)?;
    let rest_ns = if rest.is_empty() { 0 } else { go_ns(rest)? };
    let total = days.checked_mul(DAY_NS)?.checked_add(rest_ns)?;
    i64::try_from(if negative { -total } else { total }).ok()
}

/// Splits `2d3h` into 2 and `3h`. A minus in front of the days holds for all that follows.
fn split_days(text: &str) -> Option<(i128, &str, bool)> {
    let unsigned = text.strip_prefix('-').unwrap_or(text);
    let digits = unsigned.len() - unsigned.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    match unsigned[digits..].strip_prefix('d') {
        Some(rest) if digits > 0 => {
            Some((unsigned[..digits].parse().ok()?, rest, unsigned.len() < text.len()))
        }
        _ => Some((0, text, false)),
    }
}

/// Go's `time.ParseDuration`: an optional sign, then decimal numbers with a unit each; a bare `0` is fine.
fn go_ns(text: &str) -> Option<i128> {
    let (negative, mut rest) = match text.as_bytes().first()? {
        b'-' => (true, &text[1..]),
        b'+' => (false, &text[1..]),
        _ => (false, text),
    };
    if rest == "0" {
        return Some(0);
    }
    if rest.is_empty() {
        return None;
    }
    let mut total: i128 = 0;
    while !rest.is_empty() {
        let (ns, after) = one_term(rest)?;
        total = total.checked_add(ns)?;
        rest = after;
    }
    Some(if negative { -total } else { total })
}

/// `1.5s` and what follows it.
fn one_term(text: &str) -> Option<(i128, &str)> {
    let number_len = text.find(|c: char| !c.is_ascii_digit() && c != '.')?;
    let (number, rest) = text.split_at(number_len);
    let unit_len = rest.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(rest.len());
    let (unit, after) = rest.split_at(unit_len);
    let unit_ns: i128 = match unit {
        "ns" => 1,
        "us" | "µs" | "μs" => 1_000,
        "ms" => 1_000_000,
        "s" => 1_000_000_000,
        "m" => 60 * 1_000_000_000,
        "h" => 3600 * 1_000_000_000,
        _ => return None,
    };
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if whole.is_empty() && fraction.is_empty() || fraction.contains('.') {
        return None;
    }
    let mut ns = if whole.is_empty() { 0 } else { whole.parse::<i128>().ok()?.checked_mul(unit_ns)? };
    let mut digit_ns = unit_ns;
    for digit in fraction.bytes() {
        digit_ns /= 10;
        ns += i128::from(digit - b'0') * digit_ns;
    }
    Some((ns, after))
}

#[cfg(test)]
mod tests {
    use super::parse_ns;

    #[test]
    fn durations_read_as_in_go_with_days_in_front() {
        let second = 1_000_000_000;
        for (text, expected) in [
            ("", 0),
            ("0", 0),
            ("10s", 10 * second),
            ("1m0s", 60 * second),
            ("1h30m", 5400 * second),
            ("1.5s", 1_500_000_000),
            (".5s", 500_000_000),
            ("200ms", 200_000_000),
            ("3us", 3_000),
            ("3µs", 3_000),
            ("7ns", 7),
            ("1d", 86_400 * second),
            ("1d12h", 129_600 * second),
            ("-1d12h", -129_600 * second),
            ("-2s", -2 * second),
            ("+2s", 2 * second),
        ] {
            assert_eq!(parse_ns(text), Some(expected), "{text}");
        }
    }

    #[test]
    fn malformed_durations_are_refused() {
        for text in ["10", "s", "10 s", "1d2", "abc", "1.2.3s", ".s", "1x", "-", "12h1d", "200000d", "1s "] {
            assert_eq!(parse_ns(text), None, "{text}");
        }
    }
}
