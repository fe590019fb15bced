//! Times as flags take them.

use std::time::Duration;

/// A time with a unit: 90s, 10m, 2h; seconds without one.
pub fn duration(text: &str) -> Result<Duration, String> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let wanted = || "a time is wanted, such as 90s, 10m or 2h".to_owned();
    let factor = match unit {
        "" | "s" => 1,
        "m" => 60,
        "h" => 3600,
        _ => return Err(wanted()),
    };
    let number: u64 = number.parse().map_err(|_| wanted())?;
    number.checked_mul(factor).map(Duration::from_secs).ok_or_else(wanted)
}
