//! Whether what is kept may be used for a request now (RFC 9111, section 4.2.4; RFC 5861).

use crate::directive::Directives;
use crate::terms::Terms;

/// What is done with what is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reuse {
    /// It is the answer.
    Fresh,
    /// It is the answer once more, while it is asked for anew.
    Stale,
    /// The service is asked first.
    Validate,
}

/// What is wrong with a service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trouble {
    /// It cannot be reached, breaks off or says nothing.
    Disconnected,
    /// It answers that it fails: 500, 502, 503 or 504.
    Failing,
}

/// Whether what is kept may be used. `asked` is what the client says, where that is heard.
pub fn reuse(terms: &Terms, asked: Option<&Directives>, now_ms: u64) -> Reuse {
    if terms.always_validate {
        return Reuse::Validate;
    }
    let age_ms = terms.age_ms(now_ms);
    let stale_ms = terms.stale_ms(now_ms);
    if let Some(asked) = asked {
        let too_old = asked.max_age_s.is_some_and(|max_age_s| age_ms > max_age_s * 1_000 || max_age_s == 0);
        let min_fresh_ms = i64::try_from(asked.min_fresh_s.unwrap_or(0) * 1_000).unwrap_or(i64::MAX);
        if asked.no_cache || too_old || (asked.min_fresh_s.is_some() && terms.ttl_ms(now_ms) < min_fresh_ms) {
            return Reuse::Validate;
        }
        let may_be_stale_ms = asked.max_stale_s.unwrap_or(0) * 1_000;
        // Who forbids stale answers when the service is down forbids them altogether.
        if stale_ms.is_some_and(|stale_ms| stale_ms < may_be_stale_ms) && terms.stale_if_disconnected_ms > 0 {
            return Reuse::Fresh;
        }
    }
    match stale_ms {
        None => Reuse::Fresh,
        Some(stale_ms) if stale_ms < terms.stale_while_revalidate_ms => Reuse::Stale,
        Some(_) => Reuse::Validate,
    }
}

/// Whether what is kept may be used because the service is in trouble.
pub fn may_serve_stale(terms: &Terms, trouble: Trouble, now_ms: u64) -> bool {
    let allowed_ms = match trouble {
        Trouble::Disconnected => terms.stale_if_disconnected_ms.max(terms.stale_if_error_ms),
        Trouble::Failing => terms.stale_if_error_ms,
    };
    !terms.always_validate && terms.stale_ms(now_ms).is_none_or(|stale_ms| stale_ms < allowed_ms)
}

#[cfg(test)]
mod tests {
    use super::{Reuse, Trouble, may_serve_stale, reuse};
    use crate::{Directives, Terms};
    use proptest::prelude::*;

    const TERMS: Terms = Terms {
        received_ms: 1_000_000,
        age_ms: 2_000,
        fresh_ms: 10_000,
        stale_while_revalidate_ms: 5_000,
        stale_if_error_ms: 20_000,
        stale_if_disconnected_ms: 60_000,
        always_validate: false,
    };

    #[test]
    fn an_answer_is_fresh_then_stale_then_asked_for() {
        let check = |after_ms: u64, expected| {
            assert_eq!(reuse(&TERMS, None, TERMS.received_ms + after_ms), expected, "{after_ms}");
        };
        check(0, Reuse::Fresh);
        check(7_999, Reuse::Fresh);
        check(8_000, Reuse::Stale);
        check(12_999, Reuse::Stale);
        check(13_000, Reuse::Validate);
        let always = Terms { always_validate: true, ..TERMS };
        assert_eq!(reuse(&always, None, TERMS.received_ms), Reuse::Validate);
    }

    #[test]
    fn a_service_in_trouble_is_answered_for() {
        let check = |terms: &Terms, trouble, after_ms: u64, expected| {
            let found = may_serve_stale(terms, trouble, TERMS.received_ms + after_ms);
            assert_eq!(found, expected, "{trouble:?} {after_ms}");
        };
        check(&TERMS, Trouble::Failing, 27_999, true);
        check(&TERMS, Trouble::Failing, 28_000, false);
        check(&TERMS, Trouble::Disconnected, 67_999, true);
        check(&TERMS, Trouble::Disconnected, 68_000, false);
        let always = Terms { always_validate: true, ..TERMS };
        check(&always, Trouble::Disconnected, 0, false);
    }

    #[test]
    fn clients_that_are_heard_may_ask_for_less_and_more() {
        let check = |said: Directives, after_ms: u64, expected| {
            assert_eq!(reuse(&TERMS, Some(&said), TERMS.received_ms + after_ms), expected, "{said:?} {after_ms}");
        };
        let none = Directives::default;
        check(none(), 0, Reuse::Fresh);
        check(Directives { no_cache: true, ..none() }, 0, Reuse::Validate);
        check(Directives { max_age_s: Some(0), ..none() }, 0, Reuse::Validate);
        check(Directives { max_age_s: Some(2), ..none() }, 0, Reuse::Fresh);
        check(Directives { max_age_s: Some(2), ..none() }, 1, Reuse::Validate);
        check(Directives { min_fresh_s: Some(8), ..none() }, 0, Reuse::Fresh);
        check(Directives { min_fresh_s: Some(9), ..none() }, 0, Reuse::Validate);
        check(Directives { max_stale_s: Some(100), ..none() }, 50_000, Reuse::Fresh);
        check(Directives { max_stale_s: Some(1), ..none() }, 50_000, Reuse::Validate);
    }

    proptest! {
        #[test]
        fn nothing_gets_fresher_with_time(
            age_ms in 0_u64..1 << 40, fresh_ms in any::<u64>(), stale in any::<u64>(), first in any::<u64>(), later in any::<u64>(),
        ) {
            let terms = Terms { age_ms, fresh_ms, stale_while_revalidate_ms: stale, ..TERMS };
            let rank = |reuse| match reuse { Reuse::Fresh => 0, Reuse::Stale => 1, Reuse::Validate => 2 };
            let (first, later) = (first.min(later), first.max(later));
            prop_assert!(rank(reuse(&terms, None, first)) <= rank(reuse(&terms, None, later)));
        }
    }
}
