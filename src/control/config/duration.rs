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

/// As MediaMTX shows a duration: days, then Go's form of the rest; zero is empty.
pub(super) fn to_text(ns: i64) -> String {
    let days = i128::from(ns).unsigned_abs() / DAY_NS.unsigned_abs();
    let rest = i128::from(ns).unsigned_abs() % DAY_NS.unsigned_abs();
    let sign = if ns < 0 { "-" } else { "" };
    match (days, rest) {
        (0, 0) => String::new(),
        (0, rest) => format!("{sign}{}", go_text(rest)),
        (days, 0) => format!("{sign}{days}d"),
        (days, rest) => format!("{sign}{days}d{}", go_text(rest)),
    }
}

/// Go's `time.Duration.String`, of less than a day.
fn go_text(ns: u128) -> String {
    for (unit, name) in [(1_000, "ns"), (1_000_000, "µs"), (1_000_000_000, "ms")] {
        if ns < unit {
            return format!("{}{name}", decimal(ns, unit / 1_000));
        }
    }
    let minutes = ns / 60_000_000_000;
    let seconds = decimal(ns % 60_000_000_000, 1_000_000_000);
    match (minutes / 60, minutes % 60) {
        (0, 0) => format!("{seconds}s"),
        (0, minutes) => format!("{minutes}m{seconds}s"),
        (hours, minutes) => format!("{hours}h{minutes}m{seconds}s"),
    }
}

/// `number / unit` without zeros at the end.
fn decimal(number: u128, unit: u128) -> String {
    let (whole, fraction) = (number / unit, number % unit);
    if fraction == 0 {
        return whole.to_string();
    }
    let digits = unit.ilog10() as usize;
    format!("{whole}.{}", format!("{fraction:0digits$}").trim_end_matches('0'))
}

#[cfg(test)]
mod tests {
    use super::{parse_ns, to_text};

    #[test]
    fn durations_are_shown_as_mediamtx_shows_them_and_read_back() {
        for (text, shown) in [
            ("10s", "10s"),
            ("60s", "1m0s"),
            ("1h", "1h0m0s"),
            ("24h", "1d"),
            ("36h", "1d12h0m0s"),
            ("200ms", "200ms"),
            ("1.5s", "1.5s"),
            ("1500us", "1.5ms"),
            ("7ns", "7ns"),
            ("61.25s", "1m1.25s"),
            ("0s", ""),
            ("-2s", "-2s"),
            ("-1d", "-1d"),
        ] {
            let ns = parse_ns(text).unwrap();
            assert_eq!(to_text(ns), shown, "{text}");
            assert_eq!(parse_ns(shown), Some(ns), "{text}");
        }
    }

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
