//! Where to begin to read, as text.

use std::time::Duration;

use seriatim_client::{Offset, Position};
use seriatim_runtime::clock;

/// What is accepted, for the help and for errors.
pub(super) const FORMS: &str = "start, end, an offset, a time such as 2013-01-15, \
    2013-01-15T08:30:00 (UTC) or 2013-01-15T08:30:00+01:00, @SECONDS since 1970, or a time back \
    from now such as -15m";

pub(super) fn parse(text: &str) -> Result<Position, String> {
    match text {
        "start" => return Ok(Position::Start),
        "end" => return Ok(Position::End),
        _ => {}
    }
    if let Ok(offset) = text.parse::<i64>() {
        return match offset {
            0.. => Ok(Position::Offset(Offset(offset))),
            _ => Err(
                "an offset is 0 or more; a time back from now has a unit, as in -15m".to_owned(),
            ),
        };
    }
    time(text)
        .map(Position::Time)
        .ok_or_else(|| format!("expected {FORMS}"))
}

/// Milliseconds since 1970.
pub(super) fn time(text: &str) -> Option<i64> {
    if let Some(back) = text.strip_prefix('-') {
        let back: Duration = humantime::parse_duration(back).ok()?;
        let back = i64::try_from(back.as_millis()).ok()?;
        return clock::wall_ms().checked_sub(back);
    }
    if let Some(seconds) = text.strip_prefix('@') {
        return seconds.parse::<i64>().ok()?.checked_mul(1000);
    }
    if let Ok(time) = text.parse::<jiff::Timestamp>() {
        return Some(time.as_millisecond());
    }
    let civil = text.parse::<jiff::civil::DateTime>().ok()?;
    let time = jiff::tz::TimeZone::UTC.to_timestamp(civil).ok()?;
    Some(time.as_millisecond())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions() {
        assert_eq!(parse("start"), Ok(Position::Start));
        assert_eq!(parse("end"), Ok(Position::End));
        assert_eq!(parse("42"), Ok(Position::Offset(Offset(42))));
        let day = Ok(Position::Time(1_358_208_000_000));
        for same in [
            "2013-01-15T00:00:00Z",
            "2013-01-15",
            "2013-01-15T00:00",
            "2013-01-15 00:00:00",
            "2013-01-15T01:00:00+01:00",
            "@1358208000",
        ] {
            assert_eq!(parse(same), day, "{same}");
        }
        let Ok(Position::Time(hour_ago)) = parse("-1h") else {
            panic!("no time")
        };
        let back = clock::wall_ms() - hour_ago;
        assert!((3_600_000..3_660_000).contains(&back), "{back}");
        for bad in [
            "-1",
            "yesterday",
            "",
            "@",
            "-x",
            "2013-13-01",
            "9223372036854775808",
        ] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }
}
