//! Sizes as MediaMTX writes them: a number and a unit, all units 1024-based (`50M`, `1.5GiB`, `512B`).

/// Parses to bytes; `None` when the text is no positive size with a unit, or exceeds 64 bits.
pub(super) fn parse_bytes(text: &str) -> Option<u64> {
    let text = text.trim();
    let number_len = text.find(|c: char| !c.is_ascii_digit() && c != '.')?;
    let (number, unit) = text.split_at(number_len);
    let shift = match unit.to_ascii_uppercase().as_str() {
        "B" => 0,
        "K" | "KB" | "KIB" => 10,
        "M" | "MB" | "MIB" => 20,
        "G" | "GB" | "GIB" => 30,
        "T" | "TB" | "TIB" => 40,
        "P" | "PB" | "PIB" => 50,
        "E" | "EB" | "EIB" => 60,
        _ => return None,
    };
    if let Ok(whole) = number.parse::<u64>() {
        return whole.checked_mul(1 << shift).filter(|bytes| *bytes > 0);
    }
    let bytes = number.parse::<f64>().ok()? * (1_u64 << shift) as f64;
    (bytes >= 1.0 && bytes < u64::MAX as f64).then_some(bytes as u64)
}

/// As MediaMTX shows a size: in the largest unit that leaves a whole number or a decimal of one digit; what would not
/// come back as it was is shown in bytes.
pub(super) fn to_text(bytes: u64) -> String {
    for (shift, unit) in [(60, "E"), (50, "P"), (40, "T"), (30, "G"), (20, "M"), (10, "K")] {
        if bytes >= 1 << shift {
            let tenths = bytes as f64 / (1_u64 << shift) as f64;
            let text = format!("{tenths:.1}");
            let text = format!("{}{unit}", text.strip_suffix(".0").unwrap_or(&text));
            if parse_bytes(&text) == Some(bytes) {
                return text;
            }
        }
    }
    format!("{bytes}B")
}

#[cfg(test)]
mod tests {
    use super::{parse_bytes, to_text};

    #[test]
    fn sizes_are_shown_short_and_come_back_as_they_were() {
        for (bytes, shown) in [
            (52_428_800, "50M"),
            (1_572_864, "1.5M"),
            (65_536, "64K"),
            (1, "1B"),
            (1_000_000, "1000000B"),
            (1_536_000, "1500K"),
            (2 << 30, "2G"),
        ] {
            assert_eq!(to_text(bytes), shown);
            assert_eq!(parse_bytes(shown), Some(bytes));
        }
    }

    #[test]
    fn sizes_are_1024_based_in_any_case() {
        for (text, expected) in [
            ("1B", 1),
            ("64K", 65_536),
            ("64kb", 65_536),
            ("64KiB", 65_536),
            ("50M", 52_428_800),
            ("1.5m", 1_572_864),
            ("2G", 2_147_483_648),
            ("1T", 1 << 40),
        ] {
            assert_eq!(parse_bytes(text), Some(expected), "{text}");
        }
    }

    #[test]
    fn sizes_without_unit_or_value_are_refused() {
        for text in ["", "10", "K", "0M", "-1M", "1.2.3M", "16E", "1X", "1 0M"] {
            assert_eq!(parse_bytes(text), None, "{text}");
        }
    }
}
