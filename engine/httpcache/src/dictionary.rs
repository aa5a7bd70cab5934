//! Dictionaries of structured fields (RFC 9651, section 4.2.2), as far as cache directives go.
//!
//! A value whose kind no directive has is read over; byte sequences and inner lists, which none has either, make the
//! whole field unreadable, which a reader then treats as absent.

/// A value, as far as directives tell values apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Item {
    /// Named without a value, or `?1`.
    True,
    Integer(i64),
    Other,
}

/// The longest integer there is has 15 digits.
const DIGITS_MAX: usize = 15;

/// Names with their values. `None` when it is no dictionary.
pub(crate) fn parse(text: &[u8]) -> Option<Vec<(String, Item)>> {
    let mut reader = Reader { rest: text.trim_ascii() };
    let mut members: Vec<(String, Item)> = Vec::new();
    while !reader.rest.is_empty() {
        let name = reader.key()?;
        let item = if reader.skip(b'=') { reader.item()? } else { Item::True };
        while reader.skip(b';') {
            reader.spaces();
            reader.key()?;
            if reader.skip(b'=') {
                reader.item()?;
            }
        }
        members.retain(|(known, _)| *known != name);
        members.push((name, item));
        reader.spaces();
        if reader.rest.is_empty() {
            break;
        }
        if !reader.skip(b',') {
            return None;
        }
        reader.spaces();
        if reader.rest.is_empty() {
            return None;
        }
    }
    Some(members)
}

struct Reader<'t> {
    rest: &'t [u8],
}

impl<'t> Reader<'t> {
    fn skip(&mut self, byte: u8) -> bool {
        match self.rest.split_first() {
            Some((first, rest)) if *first == byte => {
                self.rest = rest;
                true
            }
            Some(_) | None => false,
        }
    }

    fn spaces(&mut self) {
        self.rest = self.rest.trim_ascii_start();
    }

    fn take_while(&mut self, fits: impl Fn(u8) -> bool) -> &'t [u8] {
        let length = self.rest.iter().position(|byte| !fits(*byte)).unwrap_or(self.rest.len());
        let (taken, rest) = self.rest.split_at(length);
        self.rest = rest;
        taken
    }

    fn key(&mut self) -> Option<String> {
        let first = *self.rest.first()?;
        if !first.is_ascii_lowercase() && first != b'*' {
            return None;
        }
        let fits = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"_-.*".contains(&byte);
        String::from_utf8(self.take_while(fits).to_vec()).ok()
    }

    fn item(&mut self) -> Option<Item> {
        let first = *self.rest.first()?;
        match first {
            b'?' => {
                self.skip(b'?');
                match self.take_while(|byte| byte.is_ascii_digit()) {
                    b"1" => Some(Item::True),
                    b"0" => Some(Item::Other),
                    _ => None,
                }
            }
            b'"' => self.string(),
            b'-' | b'0'..=b'9' => self.number(),
            _ if first.is_ascii_alphabetic() || first == b'*' => {
                self.take_while(|byte| byte.is_ascii_alphanumeric() || b":/!#$%&'*+-.^_`|~".contains(&byte));
                Some(Item::Other)
            }
            _ => None,
        }
    }

    fn number(&mut self) -> Option<Item> {
        let negative = self.skip(b'-');
        let whole = self.take_while(|byte| byte.is_ascii_digit());
        if whole.is_empty() || whole.len() > DIGITS_MAX {
            return None;
        }
        if self.skip(b'.') {
            let fraction = self.take_while(|byte| byte.is_ascii_digit());
            return (!fraction.is_empty()).then_some(Item::Other);
        }
        let number: i64 = std::str::from_utf8(whole).ok()?.parse().ok()?;
        Some(Item::Integer(if negative { -number } else { number }))
    }

    fn string(&mut self) -> Option<Item> {
        self.skip(b'"');
        loop {
            self.take_while(|byte| (b' '..=b'~').contains(&byte) && byte != b'"' && byte != b'\\');
            if self.skip(b'"') {
                return Some(Item::Other);
            }
            if !self.skip(b'\\') || !(self.skip(b'"') || self.skip(b'\\')) {
                return None;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Item, parse};
    use proptest::prelude::*;

    #[test]
    fn members_are_read_by_kind() {
        let read = parse(br#"a, b=2, c="x,\"y", d=?0, e=1.5;p=1;q, f=tok/en, b=-3"#).expect("a dictionary");
        let expected = [
            ("a", Item::True),
            ("c", Item::Other),
            ("d", Item::Other),
            ("e", Item::Other),
            ("f", Item::Other),
            ("b", Item::Integer(-3)),
        ];
        assert_eq!(read, expected.map(|(name, item)| (name.to_owned(), item)));
        assert_eq!(parse(b"  "), Some(vec![]));
        for wrong in ["a,", "a b", "a=", "A=1", "a==1", "a=\"x", "a=(1 2)", "a=1234567890123456", "a=?2", ",a"] {
            assert_eq!(parse(wrong.as_bytes()), None, "{wrong}");
        }
    }

    proptest! {
        #[test]
        fn nothing_panics(text in proptest::collection::vec(any::<u8>(), 0..60)) {
            let _ = parse(&text);
        }
    }
}
