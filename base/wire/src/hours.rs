//! Hours of a week as people write them: `mon-fri 18:00-08:00`, `sat,sun`, `22:30-06:00`.
//!
//! A span belongs to the day it begins on and may end on the next one. Days alone are whole days, times alone are every day.

use crate::resource::Hours;
use std::fmt;

const DAYS: [&str; 7] = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"];
const DAY_MINUTES: u32 = 24 * 60;
const WEEK_MINUTES: u32 = 7 * DAY_MINUTES;
/// A text of more is none that a person wrote.
const TEXT_BYTES_MAX: usize = 200;

/// What of a text is no hours. Columns count characters from 1.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HoursError {
    given: String,
    pub column: usize,
    what: String,
}

impl HoursError {
    pub fn hint(&self) -> &'static str {
        "write it as `mon-fri 18:00-08:00`, `sat,sun` or `22:30-06:00`; days are mon tue wed thu fri sat sun"
    }
}

impl fmt::Display for HoursError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}` is not understood at character {}: {}", self.given, self.column, self.what)
    }
}

impl std::error::Error for HoursError {}

/// The spans that a text names, one for each day it names.
///
/// # Errors
/// What is no day or time, and where.
pub fn parse(text: &str) -> Result<Vec<Hours>, HoursError> {
    let wrong = |at: usize, what: String| {
        // What begins in the middle of a character begins with it.
        let column = text.char_indices().take_while(|(index, _)| *index < at).count() + 1;
        HoursError { given: text.to_owned(), column, what }
    };
    if text.len() > TEXT_BYTES_MAX {
        let given = format!("{}…", text.chars().take(20).collect::<String>());
        return Err(HoursError { given, column: 1, what: format!("it is longer than {TEXT_BYTES_MAX} bytes") });
    }
    let mut words = words(text);
    let (days, times) = match (words.next(), words.next(), words.next()) {
        (None, ..) => return Err(wrong(0, "it is empty".to_owned())),
        (Some(only), None, _) if only.1.starts_with(|first: char| first.is_ascii_digit()) => (None, Some(only)),
        (Some(only), None, _) => (Some(only), None),
        (Some(days), Some(times), None) => (Some(days), Some(times)),
        (_, _, Some((at, _))) => return Err(wrong(at, "days and times are all there is to be".to_owned())),
    };
    let days =
        days.map_or_else(|| Ok([true; 7]), |(at, word)| read_days(at, word)).map_err(|(at, what)| wrong(at, what))?;
    let (from, to) = match times {
        Some((at, word)) => read_times(at, word).map_err(|(at, what)| wrong(at, what))?,
        None => (0, DAY_MINUTES),
    };
    let lasts = if to > from { to - from } else { to + DAY_MINUTES - from };
    let span = |day: usize| {
        let from_minute = u32::try_from(day).unwrap_or(0) * DAY_MINUTES + from;
        Hours { from_minute, to_minute: (from_minute + lasts) % WEEK_MINUTES }
    };
    Ok((0..DAYS.len()).filter(|day| days[*day]).map(span).collect())
}

/// The same spans as texts, those of one time of day together.
pub fn told(hours: &[Hours]) -> Vec<String> {
    let mut by_time: Vec<((u32, u32), [bool; 7])> = Vec::new();
    for span in hours {
        let (from, to) = (span.from_minute % WEEK_MINUTES, span.to_minute % WEEK_MINUTES);
        let day = usize::try_from(from / DAY_MINUTES).unwrap_or(0) % DAYS.len();
        let at = (from % DAY_MINUTES, to % DAY_MINUTES);
        match by_time.iter_mut().find(|(time, _)| *time == at) {
            Some((_, days)) => days[day] = true,
            None => {
                let mut days = [false; 7];
                days[day] = true;
                by_time.push((at, days));
            }
        }
    }
    let clock = |minute: u32| format!("{:02}:{:02}", minute / 60, minute % 60);
    let each = by_time.into_iter().map(|((from, to), days)| match (from, to) {
        (0, 0) => told_days(days),
        (from, to) if days == [true; 7] => format!("{}-{}", clock(from), clock(to)),
        (from, to) => format!("{} {}-{}", told_days(days), clock(from), clock(to)),
    });
    each.collect()
}

fn told_days(days: [bool; 7]) -> String {
    let mut told: Vec<String> = Vec::new();
    let mut day = 0;
    while day < DAYS.len() {
        let run = days[day..].iter().take_while(|is_named| **is_named).count();
        match run {
            0 => {}
            1 => told.push(DAYS[day].to_owned()),
            2 => told.extend([DAYS[day].to_owned(), DAYS[day + 1].to_owned()]),
            3.. => told.push(format!("{}-{}", DAYS[day], DAYS[day + run - 1])),
        }
        day += run.max(1);
    }
    told.join(",")
}

/// With where each begins.
fn words(text: &str) -> impl Iterator<Item = (usize, &str)> {
    text.split(' ')
        .scan(0, |next, word| {
            let at = *next;
            *next += word.len() + 1;
            Some((at, word))
        })
        .filter(|(_, word)| !word.is_empty())
}

type Wrong = (usize, String);

fn read_days(at: usize, word: &str) -> Result<[bool; 7], Wrong> {
    let mut days = [false; 7];
    let mut next = at;
    for part in word.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let last_at = next + part.len() - last.len();
        let (first, last) = (day(next, first)?, day(last_at, last)?);
        let run = (last + DAYS.len() - first) % DAYS.len();
        (0..=run).for_each(|more| days[(first + more) % DAYS.len()] = true);
        next += part.len() + 1;
    }
    Ok(days)
}

fn day(at: usize, word: &str) -> Result<usize, Wrong> {
    let lower = word.to_ascii_lowercase();
    DAYS.iter().position(|day| *day == lower).ok_or_else(|| (at, format!("`{word}` is no day")))
}

/// From and to, in minutes of a day; the end may be 24:00.
fn read_times(at: usize, word: &str) -> Result<(u32, u32), Wrong> {
    let Some((from, to)) = word.split_once('-') else {
        return Err((at, format!("`{word}` is no time from and to, as 18:00-08:00")));
    };
    let to_at = at + from.len() + 1;
    let (from, to) = (minute(at, from)?, minute(to_at, to)?);
    if from == DAY_MINUTES {
        return Err((at, "a day's hours begin before 24:00".to_owned()));
    }
    if from == to {
        return Err((to_at, "they end when they begin: leave the times out for the whole day".to_owned()));
    }
    Ok((from, to))
}

fn minute(at: usize, word: &str) -> Result<u32, Wrong> {
    let wrong = || (at, format!("`{word}` is no time of day, as 08:00"));
    let number = |digits: &str, length: usize| {
        let is_number = (1..=length).contains(&digits.len()) && digits.bytes().all(|byte| byte.is_ascii_digit());
        digits.parse::<u32>().ok().filter(|_| is_number)
    };
    let (hour, minute) = word.split_once(':').ok_or_else(wrong)?;
    let minute = Some(minute).filter(|minute| minute.len() == 2).and_then(|minute| number(minute, 2));
    let of_day =
        number(hour, 2).zip(minute).filter(|(_, minute)| *minute < 60).map(|(hour, minute)| hour * 60 + minute);
    of_day.filter(|of_day| *of_day <= DAY_MINUTES).ok_or_else(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hours_are_read_and_told_again() {
        let check = |text: &str, spans: &[(u32, u32)], again: &str| {
            let hours = parse(text).unwrap_or_else(|error| panic!("{text}: {error}"));
            let found: Vec<(u32, u32)> = hours.iter().map(|span| (span.from_minute, span.to_minute)).collect();
            assert_eq!(found, spans, "{text}");
            assert_eq!(told(&hours), [again], "{text}");
        };
        let day = |day: u32, minute: u32| (day * DAY_MINUTES + minute) % WEEK_MINUTES;
        check("mon,fri 18:00-08:00", &[(1_080, day(1, 480)), (day(4, 1_080), day(5, 480))], "mon,fri 18:00-08:00");
        check(" SUN  22:00-6:30 ", &[(day(6, 1_320), 390)], "sun 22:00-06:30");
        check("sat-sun", &[(day(5, 0), day(6, 0)), (day(6, 0), 0)], "sat,sun");
        check("mon 8:00-24:00", &[(480, day(1, 0))], "mon 08:00-00:00");
        let nights: Vec<_> = (0..7).map(|number| (day(number, 1_320), day(number + 1, 360))).collect();
        check("22:00-06:00", &nights, "22:00-06:00");
        let around = parse("fri-mon 12:00-13:00").expect("days go round the week");
        assert_eq!(told(&around), ["mon,fri-sun 12:00-13:00"]);
        assert_eq!(told(&[]), [] as [&str; 0]);
    }

    #[test]
    fn what_is_no_hours_is_named_with_its_place() {
        let check = |text: &str, column: usize, what: &str| {
            let error = parse(text).expect_err(text);
            assert_eq!((error.column, error.to_string().contains(what)), (column, true), "{text}: {error}");
        };
        check("", 1, "empty");
        check("mon-fry 18:00-08:00", 5, "`fry` is no day");
        check("mon,,tue", 5, "`` is no day");
        check("mon 18:00-25:00", 11, "`25:00` is no time");
        check("mon 18:60-20:00", 5, "`18:60` is no time");
        check("mon 18:0-20:00", 5, "`18:0` is no time");
        check("mon +8:00-20:00", 5, "`+8:00` is no time");
        check("mon 18:00", 5, "from and to");
        check("18:00-18:00", 7, "whole day");
        check("24:00-08:00", 1, "before 24:00");
        check("mon 1:00-2:00 tue", 15, "all there is");
        check("möntag", 1, "`möntag` is no day");
        check("mon,mö 1:00-2:00", 5, "`mö` is no day");
        check(&"mon,".repeat(80), 1, "longer");
    }
}
