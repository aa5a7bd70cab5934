//! Dates as HTTP writes them: the one form in use, and the two that must still be read (RFC 9110, section 5.6.7).

/// In 1970 began what this counts from; earlier dates are as old as that.
const DAYS_TO_1970: i64 = 719_468;
const DAY_S: u64 = 86_400;
/// Of a year with two digits, one that is further ahead than this is in the past.
const AHEAD_YEARS_MAX: i64 = 50;

const DAYS: [&str; 7] = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"];
const LONG_DAYS: [&str; 7] = ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"];
const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

/// Seconds since 1970. `None` for what is not a date, however close.
pub fn parse_date(text: &[u8], now_s: u64) -> Option<u64> {
    let text = std::str::from_utf8(text).ok()?.trim();
    let (date, time) = match text.split_once(',') {
        Some((day, rest)) if is_one_of(day, &DAYS) => {
            let [date, time, zone] = words(rest.strip_prefix(' ')?)?;
            let [date_day, month, year] = [date.get(..2)?, date.get(3..6)?, date.get(7..)?];
            let spaced = date.as_bytes().get(2) == Some(&b' ') && date.as_bytes().get(6) == Some(&b' ');
            let date = (digits(date_day, 2)?, month_of(month)?, digits(year, 4)?);
            (is_gmt(zone) && spaced).then_some((date, time))?
        }
        Some((day, rest)) if is_one_of(day, &LONG_DAYS) => {
            let mut parts = rest.strip_prefix(' ')?.split(' ');
            let (date, time, zone) = (parts.next()?, parts.next()?, parts.next()?);
            let mut date = date.split('-');
            let (day, month, year) = (date.next()?, date.next()?, date.next()?);
            let known = (digits(day, 2)?, month_of(month)?, century(digits(year, 2)?, now_s));
            (is_gmt(zone) && parts.next().is_none() && date.next().is_none()).then_some((known, time))?
        }
        Some(_) => return None,
        None => asctime(text)?,
    };
    let (day, month, year) = date;
    let [hour, minute, second] = clock(time)?;
    if day == 0 || day > 31 || hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    let seconds = days_since_1970(year, month, day) * i64::try_from(DAY_S).ok()? + hour * 3_600 + minute * 60 + second;
    Some(u64::try_from(seconds).unwrap_or(0))
}

/// The form that is written today: `Sun, 06 Nov 1994 08:49:37 GMT`.
pub fn http_date(unix_s: u64) -> String {
    let days = unix_s / DAY_S;
    let (year, month, day) = civil(i64::try_from(days).unwrap_or(0));
    let of_week = usize::try_from(days % 7).ok().and_then(|at| DAYS.get(at)).copied().unwrap_or_default();
    let month = usize::try_from(month - 1).ok().and_then(|at| MONTHS.get(at)).copied().unwrap_or_default();
    let of_day = unix_s % DAY_S;
    let (hour, minute, second) = (of_day / 3_600, of_day / 60 % 60, of_day % 60);
    format!("{of_week}, {day:02} {month} {year:04} {hour:02}:{minute:02}:{second:02} GMT")
}

/// `06 Nov 1994`, `08:49:37` and `GMT`, with one space between.
fn words(text: &str) -> Option<[&str; 3]> {
    let (rest, zone) = text.rsplit_once(' ')?;
    let (date, time) = rest.rsplit_once(' ')?;
    Some([date, time, zone])
}

/// `Sun Nov  6 08:49:37 1994`.
fn asctime(text: &str) -> Option<((i64, i64, i64), &str)> {
    let fixed = [text.get(..3)?, text.get(4..7)?, text.get(8..10)?, text.get(11..19)?, text.get(20..)?];
    let [weekday, month, day, time, year] = fixed;
    let spaces = [3, 7, 10, 19].iter().all(|at| text.as_bytes().get(*at) == Some(&b' '));
    if !spaces || !is_one_of(weekday, &DAYS) {
        return None;
    }
    let day = match day.strip_prefix(' ') {
        Some(single) => digits(single, 1)?,
        None => digits(day, 2)?,
    };
    Some(((day, month_of(month)?, digits(year, 4)?), time))
}

fn clock(text: &str) -> Option<[i64; 3]> {
    let bytes = text.as_bytes();
    if bytes.len() != 8 || bytes.get(2) != Some(&b':') || bytes.get(5) != Some(&b':') {
        return None;
    }
    Some([digits(text.get(..2)?, 2)?, digits(text.get(3..5)?, 2)?, digits(text.get(6..)?, 2)?])
}

fn digits(text: &str, count: usize) -> Option<i64> {
    (text.len() == count && text.bytes().all(|byte| byte.is_ascii_digit())).then(|| text.parse().ok())?
}

fn is_one_of(text: &str, names: &[&str]) -> bool {
    names.iter().any(|name| name.eq_ignore_ascii_case(text))
}

fn is_gmt(zone: &str) -> bool {
    zone.eq_ignore_ascii_case("GMT")
}

/// From 1.
fn month_of(name: &str) -> Option<i64> {
    let at = MONTHS.iter().position(|month| month.eq_ignore_ascii_case(name))?;
    i64::try_from(at).ok().map(|at| at + 1)
}

fn century(year: i64, now_s: u64) -> i64 {
    let (this, ..) = civil(i64::try_from(now_s / DAY_S).unwrap_or(0));
    let year = this - this % 100 + year;
    if year > this + AHEAD_YEARS_MAX { year - 100 } else { year }
}

/// Howard Hinnant's algorithm: years begin in March, so that the leap day is the last.
fn days_since_1970(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let of_era = year.rem_euclid(400);
    let of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - DAYS_TO_1970
}

/// The other way: year, month and day.
fn civil(days: i64) -> (i64, i64, i64) {
    let days = days + DAYS_TO_1970;
    let era = days.div_euclid(146_097);
    let of_era = days.rem_euclid(146_097);
    let year = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    (year + era * 400 + i64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::{http_date, parse_date};
    use proptest::prelude::*;

    const NOW_S: u64 = 1_795_000_000;

    #[test]
    fn the_three_forms_are_read_and_nothing_else() {
        let check = |text: &str, expected| assert_eq!(parse_date(text.as_bytes(), NOW_S), expected, "{text}");
        check("Sun, 06 Nov 1994 08:49:37 GMT", Some(784_111_777));
        check("sun, 06 nov 1994 08:49:37 gmt", Some(784_111_777));
        check("Sunday, 06-Nov-94 08:49:37 GMT", Some(784_111_777));
        check("Thursday, 18-Aug-50 02:01:18 GMT", Some(2_544_400_878));
        check("Sun Nov  6 08:49:37 1994", Some(784_111_777));
        check("Thu Jan 01 00:00:00 1970", Some(0));
        check("Mon, 01 Jan 1900 00:00:00 GMT", Some(0));
        check("Sun, 21 Nov 2286 04:46:39 GMT", Some(10000039599));
        for wrong in [
            "",
            "0",
            "foo",
            "Thu, 18 Aug 2050 02:01:18 UTC",
            "Thu, 18 Aug 2050 02:01:18 AEST",
            "Thu, 18 Aug 50 02:01:18 GMT",
            "Thu 18 Aug 2050 02:01:18 GMT",
            "Thu, 18  Aug  2050 02:01:18 GMT",
            "Thu, 18-Aug-2050 02:01:18 GMT",
            "Thu, 18 Aug 2050 02.01.18 GMT",
            "Thu, 18 Aug 2050 2:01:18 GMT",
            "Thu, 32 Aug 2050 02:01:18 GMT",
            "Thu, 18 Aug 2050 24:01:18 GMT",
            "Thu,18 Aug 2050 02:01:18 GMT",
            "Thu, 18 Aug 2050 02:01:18",
            "Thu, ü",
        ] {
            check(wrong, None);
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(unix_s in 0_u64..253_402_300_799) {
            prop_assert_eq!(parse_date(http_date(unix_s).as_bytes(), NOW_S), Some(unix_s));
        }

        #[test]
        fn nothing_panics(text in ".{0,40}") {
            let _ = parse_date(text.as_bytes(), NOW_S);
        }
    }
}
