//! The value of `--inject`: faults to inject between the file and its pages.

use std::ops::Range;
use std::time::Duration;

use crate::size;

/// The faults of one run, and the seed of what is random about them.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct FaultPlan {
    pub(crate) faults: Vec<InjectedFault>,
    pub(crate) seed: u64,
}

/// What goes wrong when a supply touches a range of the file.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct InjectedFault {
    /// In bytes, never empty.
    pub(crate) range: Range<u64>,
    pub(crate) action: Action,
    /// How often, or every time.
    pub(crate) times: Option<u32>,
}

/// What goes wrong.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Action {
    /// The supply fails with an input/output error.
    Error,
    /// The supply gives fewer bytes than asked for.
    Short,
    /// The supply is right, but late.
    Delay(Duration),
    /// The supply does not come back.
    Hang,
}

/// Reads a comma list of `error@OFFSET+LENGTH`, `short@...`, `delay=MS@...`, `hang@...`, each with an
/// optional `:times=N`, and of `seed=N`.
pub(crate) fn parse(text: &str) -> Result<FaultPlan, String> {
    let mut plan = FaultPlan::default();
    for item in text.split(',') {
        match item.strip_prefix("seed=") {
            Some(seed) => plan.seed = seed.parse().map_err(|_| bad(item, "seed is not a number"))?,
            None => plan.faults.push(parse_fault(item)?),
        }
    }
    Ok(plan)
}

fn parse_fault(item: &str) -> Result<InjectedFault, String> {
    let (action, place) = item.split_once('@').ok_or_else(|| bad(item, "no @OFFSET+LENGTH"))?;
    let (range, option) =
        place.split_once(':').map_or((place, None), |(range, option)| (range, Some(option)));
    Ok(InjectedFault {
        action: parse_action(action).ok_or_else(|| bad(item, "not error, short, delay=MS or hang"))?,
        range: parse_range(range).map_err(|reason| bad(item, &reason))?,
        times: option.map(|option| parse_times(item, option)).transpose()?,
    })
}

fn parse_action(text: &str) -> Option<Action> {
    match text.split_once('=') {
        None if text == "error" => Some(Action::Error),
        None if text == "short" => Some(Action::Short),
        None if text == "hang" => Some(Action::Hang),
        Some(("delay", ms)) => ms.parse().ok().map(|ms| Action::Delay(Duration::from_millis(ms))),
        _ => None,
    }
}

fn parse_range(text: &str) -> Result<Range<u64>, String> {
    let (offset, length) = text.split_once('+').ok_or("no +LENGTH")?;
    let offset = size::parse(offset)?;
    match (size::parse(length)?, offset) {
        (0, _) => Err("the length is 0".to_string()),
        (length, offset) => {
            let end = offset.checked_add(length).ok_or("the range ends past 2^64 - 1")?;
            Ok(offset..end)
        }
    }
}

fn parse_times(item: &str, option: &str) -> Result<u32, String> {
    let times = option.strip_prefix("times=").and_then(|times| times.parse().ok());
    times.filter(|times| *times > 0).ok_or_else(|| bad(item, "after the colon only times=N, N at least 1"))
}

fn bad(item: &str, reason: &str) -> String {
    format!("{item:?}: {reason}")
}

#[cfg(test)]
mod tests {
    use super::{Action, FaultPlan, InjectedFault, parse};
    use std::time::Duration;

    fn fault(action: Action, range: std::ops::Range<u64>, times: Option<u32>) -> InjectedFault {
        InjectedFault { range, action, times }
    }

    #[test]
    fn every_form_in_one_list() {
        let plan =
            parse("error@4k+4k:times=3,short@0+1,delay=50@1M+2M,seed=7,hang@12+1").expect("a good list");
        let expected = vec![
            fault(Action::Error, 4096..8192, Some(3)),
            fault(Action::Short, 0..1, None),
            fault(Action::Delay(Duration::from_millis(50)), 1 << 20..3 << 20, None),
            fault(Action::Hang, 12..13, None),
        ];
        assert_eq!(plan, FaultPlan { faults: expected, seed: 7 });
        assert_eq!(parse("seed=1"), Ok(FaultPlan { faults: vec![], seed: 1 }));
    }

    #[test]
    fn bad_items_say_what_is_wrong() {
        let cases = [
            ("", "no @OFFSET+LENGTH"),
            ("error@0+1,", "no @OFFSET+LENGTH"),
            ("error", "no @OFFSET+LENGTH"),
            ("error@5", "no +LENGTH"),
            ("error@x+1", "not a size: \"x\""),
            ("error@0+0", "the length is 0"),
            ("error@18446744073709551615+1", "past 2^64 - 1"),
            ("explode@0+1", "not error, short, delay=MS or hang"),
            ("delay@0+1", "not error, short, delay=MS or hang"),
            ("delay=x@0+1", "not error, short, delay=MS or hang"),
            ("error=5@0+1", "not error, short, delay=MS or hang"),
            ("error@0+1:times=0", "times=N"),
            ("error@0+1:often", "times=N"),
            ("seed=x", "seed is not a number"),
        ];
        for (text, reason) in cases {
            let error = parse(text).expect_err(text);
            assert!(error.contains(reason), "{text}: {error}");
        }
    }
}
