//! Pages that cannot be supplied: the error is typed, names the page, spares the others and can be cleared.

use std::time::Duration;

use memobj::pagers::{Faulty, Inject, Injection};
use memobj::{AccessError, Cache, ErrorKind, Event, FailurePolicy, Mapping};
use memobj_sim::fixture::{GUARD, Reading, Way, check_sample, sample_pager, wait_until, ways, within};
use memobj_sim::time::retrying;

/// The page that fails in most tests, and a page in the middle of nothing else.
const BAD: u64 = 2;
const PAGES: u64 = 6;

fn length(way: &Way) -> u64 {
    PAGES * way.page - 100
}

fn injected(way: &Way, action: Inject, times: Option<u32>) -> (Cache, Mapping) {
    let plan = vec![Injection::new(way.page(BAD), action).times(times)];
    way.map(Faulty::new(sample_pager(length(way)), plan, 7))
}

fn kind_of(error: &AccessError) -> ErrorKind {
    error.page_error().unwrap_or_else(|| panic!("not a page's error: {error}")).kind()
}

/// Reads everything: the error is the bad page's, and only that page is missing.
fn check_failure(way: &Way, reading: Reading, mapping: &Mapping, kind: ErrorKind) {
    let what = format!("{kind:?} {reading:?} {}", way.label);
    let mut buffer = vec![0xee; length(way) as usize];
    let error = reading.read_into(mapping, 0, &mut buffer).unwrap_err();
    assert_eq!(kind_of(&error), kind, "{what}");
    assert_eq!(error.range(), way.page(BAD), "{what}");
    let page_error = error.page_error().unwrap();
    assert_eq!((page_error.object(), page_error.tries()), ("sample", 1), "{what}");
    if reading == Reading::Touch {
        check_sample(0..way.page(BAD).start, &buffer[..way.page(BAD).start as usize], &what);
    }
    // Neither zeros, nor the pager's rubbish, nor another page's bytes.
    let rest = &buffer[way.page(BAD).start as usize..];
    assert!(rest.iter().all(|byte| *byte == 0xee), "{what}: bytes of a failed page were handed out");
    for page in (0..PAGES).filter(|page| *page != BAD) {
        let range = way.page(page).start..way.page(page).end.min(length(way));
        check_sample(range.clone(), &reading.read(mapping, range).unwrap(), &what);
    }
    let errors = mapping.errors();
    assert_eq!(errors.len(), 1, "{what}");
    assert_eq!((errors[0].range(), errors[0].kind()), (way.page(BAD), kind), "{what}");
    assert_eq!(mapping.last_error().unwrap().range(), way.page(BAD), "{what}");
}

/// Runs `body` for each way; a page that neither arrives nor fails is a failure too, not a test that hangs.
fn in_each_way(body: impl Fn(&Way) + Send + Copy + 'static) {
    for way in ways() {
        within(60, &way.label.clone(), move || body(&way));
    }
}

#[test]
fn every_kind_of_failure_names_its_page_and_spares_the_others() {
    let actions = [
        (Inject::Error, ErrorKind::Io),
        (Inject::Short, ErrorKind::Truncated),
        (Inject::Long, ErrorKind::Integrity),
        (Inject::Panic, ErrorKind::Integrity),
        (Inject::Fail(ErrorKind::Denied), ErrorKind::Denied),
    ];
    in_each_way(move |way| {
        for reading in Reading::ALL {
            for (action, kind) in actions {
                let (cache, mapping) = injected(way, action, None);
                check_failure(way, reading, &mapping, kind);
                assert_eq!(cache.metrics().failed_pages, 1, "{}", way.label);
                let event = cache.events().next_within(GUARD);
                let Some(Event::PageFailed(told)) = event else { panic!("{}: {event:?}", way.label) };
                assert_eq!((told.range(), told.kind()), (way.page(BAD), kind), "{}", way.label);
            }
        }
    });
}

#[test]
fn a_failed_page_stays_failed_until_it_is_retried() {
    in_each_way(|way| {
        for reading in Reading::ALL {
            check_retry(way, reading, Inject::Error, ErrorKind::Io);
            check_retry(way, reading, Inject::Short, ErrorKind::Truncated);
        }
    });
}

fn check_retry(way: &Way, reading: Reading, action: Inject, kind: ErrorKind) {
    let what = format!("{action:?} {reading:?} {}", way.label);
    let (_cache, mapping) = injected(way, action, Some(1));
    for _ in 0..3 {
        let error = reading.read(&mapping, way.page(BAD)).unwrap_err();
        assert_eq!((kind_of(&error), error.range()), (kind, way.page(BAD)), "{what}");
    }
    assert_eq!(mapping.retry(way.page(BAD + 1)).unwrap(), 0, "{what}");
    assert!(reading.read(&mapping, way.page(BAD)).is_err(), "{what}");
    assert_eq!(mapping.retry(0..length(way)).unwrap(), 1, "{what}");
    assert!(mapping.errors().is_empty(), "{what}");
    let bytes = reading.read(&mapping, way.page(BAD)).unwrap();
    check_sample(way.page(BAD), &bytes, &what);
    assert_eq!(mapping.retry(0..length(way)).unwrap(), 0, "{what}");
}

#[test]
fn a_page_that_failed_in_one_way_of_reading_has_failed_in_all() {
    for way in ways() {
        for first in Reading::ALL {
            let (_cache, mapping) = injected(&way, Inject::Error, None);
            first.read(&mapping, way.page(BAD)).unwrap_err();
            for then in Reading::ALL {
                check_failure(&way, then, &mapping, ErrorKind::Io);
            }
        }
    }
}

#[test]
fn the_error_of_a_partial_mapping_is_told_in_bytes_of_the_object() {
    for way in ways() {
        let cache = memobj_sim::fixture::cache(way.budget);
        let pager = Faulty::failing(sample_pager(length(&way)), way.page(BAD));
        let object = cache.object("sample", pager, way.object.clone()).unwrap();
        let first = way.page + 10;
        let mapping = object.map(first..length(&way), way.map).unwrap();
        for reading in Reading::ALL {
            let offset = way.page(BAD).end - first - 1;
            let error = reading.read(&mapping, offset..offset + 2).unwrap_err();
            assert_eq!(error.range(), way.page(BAD), "{reading:?} {}", way.label);
            let after = way.page(BAD).end;
            let bytes = reading.read(&mapping, after - first..after - first + 7).unwrap();
            check_sample(after..after + 7, &bytes, &way.label);
        }
        let before = object.map(0..way.page, way.map).unwrap();
        assert!(before.errors().is_empty(), "{}: the error is outside this mapping", way.label);
    }
}

#[test]
fn a_late_answer_in_time_is_right() {
    for way in ways() {
        for reading in Reading::ALL {
            let (_cache, mapping) = injected(&way, Inject::Delay(Duration::from_millis(30)), None);
            let bytes = reading.read(&mapping, way.page(BAD)).unwrap();
            check_sample(way.page(BAD), &bytes, &way.label);
        }
    }
}

#[test]
fn errors_that_pass_are_waited_out() {
    let policies = [FailurePolicy::RetryFor(Duration::from_secs(20)), FailurePolicy::WaitForEver];
    // The pauses between four tries are shorter, and all of them than the limit.
    let pause = |_| Duration::from_secs(1);
    for mut way in ways().map(Way::timeless) {
        for policy in policies {
            way.object.policy = policy;
            for reading in Reading::ALL {
                let what = format!("{policy:?} {reading:?} {}", way.label);
                let (cache, mapping) = injected(&way, Inject::Error, Some(3));
                let read = || reading.read(&mapping, way.page(BAD));
                let (bytes, events) = retrying((&cache, &way.clock), pause, read);
                check_sample(way.page(BAD), &bytes.unwrap(), &what);
                let metrics = cache.metrics();
                assert_eq!((metrics.retries, metrics.failed_pages), (3, 0), "{what}");
                assert_eq!(events.len(), 3, "{what}: {events:?}");
                assert!(events.iter().all(|event| matches!(event, Event::Retrying(_))), "{what}: {events:?}");
            }
        }
    }
}

#[test]
fn a_deadline_ends_the_retries() {
    // Tries at 0, 10, 30 and 70 ms; the next would be at 150 ms.
    let pause = |tries: u32| Duration::from_millis(10 << (tries - 1));
    for mut way in ways().map(Way::timeless) {
        way.object.policy = FailurePolicy::RetryFor(Duration::from_millis(100));
        for reading in Reading::ALL {
            let (cache, mapping) = injected(&way, Inject::Error, None);
            let read = || reading.read(&mapping, way.page(BAD)).unwrap_err();
            let (error, events) = retrying((&cache, &way.clock), pause, read);
            assert_eq!((kind_of(&error), error.range()), (ErrorKind::Io, way.page(BAD)), "{}", way.label);
            assert_eq!(error.page_error().unwrap().tries(), 4, "{} {events:?}", way.label);
            assert!(error.to_string().ends_with(" after 4 tries"), "{error}");
        }
    }
}

#[test]
fn errors_that_cannot_pass_are_not_retried() {
    for mut way in ways() {
        way.object.policy = FailurePolicy::WaitForEver;
        for action in [Inject::Panic, Inject::Long, Inject::Fail(ErrorKind::Stale)] {
            let (cache, mapping) = injected(&way, action, None);
            let error = mapping.pin(way.page(BAD)).unwrap_err();
            assert_eq!(error.page_error().unwrap().tries(), 1, "{action:?} {}", way.label);
            assert_eq!(cache.metrics().retries, 0);
        }
    }
}

#[test]
fn failing_guesses_fail_nobody() {
    for way in ways() {
        let far = BAD..PAGES;
        let plan: Vec<Injection> =
            far.clone().map(|page| Injection::new(way.page(page), Inject::Error)).collect();
        let calls = memobj_sim::Calls::default();
        let faulty = Faulty::new(sample_pager(length(&way)), plan, 7);
        let (cache, mapping) = way.map(memobj_sim::Counted::new(faulty, calls.clone()));
        mapping.advise(0..length(&way), memobj::Advice::Sequential).unwrap();
        let bytes = Reading::Touch.read(&mapping, way.page(0)).unwrap();
        check_sample(way.page(0), &bytes, &way.label);
        wait_until("the engine has read ahead and met the failure", || {
            calls.ended_within(way.page(BAD)) > 0 && calls.running() == 0
        });
        let before = calls.ended_within(way.page(BAD));
        wait_until("the prefetch has met the failure", || {
            mapping.prefetch(&[way.page(BAD)]).unwrap();
            calls.ended_within(way.page(BAD)) > before && calls.running() == 0
        });
        assert!(mapping.errors().is_empty(), "{}: {:?}", way.label, mapping.errors());
        assert_eq!((cache.metrics().failed_pages, mapping.last_error().is_none()), (0, true));
        let error = mapping.pin(far.start * way.page..far.end * way.page - 100).unwrap_err();
        assert_eq!(error.range(), way.page(BAD), "{}", way.label);
    }
}

/// More failed pages than the table of errors holds in detail: the kind must be right all the same.
#[test]
fn a_great_outage_is_told_as_what_it_is() {
    const MANY: u64 = 5000;
    let way = ways().next().unwrap();
    let plan = vec![Injection::new(0..MANY * way.page, Inject::Fail(ErrorKind::Stale))];
    let (cache, mapping) = way.map(Faulty::new(memobj::pagers::Zero::new(MANY * way.page), plan, 0));
    for page in 0..MANY {
        let error = mapping.pin(way.page(page)).unwrap_err();
        assert_eq!((kind_of(&error), error.range()), (ErrorKind::Stale, way.page(page)));
    }
    assert_eq!(cache.metrics().failed_pages, MANY);
    assert_eq!(mapping.retry(0..MANY * way.page).unwrap(), MANY);
    assert!(mapping.errors().is_empty());
}

#[test]
fn eight_threads_at_one_failing_page_get_the_same_answer() {
    for way in ways() {
        let (cache, mapping) = injected(&way, Inject::Error, None);
        within(20, &way.label.clone(), move || {
            std::thread::scope(|scope| {
                for thread in 0..8 {
                    let (mapping, way) = (&mapping, &way);
                    scope.spawn(move || {
                        let error = Reading::ALL[thread % 3].read(mapping, way.page(BAD)).unwrap_err();
                        assert_eq!((kind_of(&error), error.range()), (ErrorKind::Io, way.page(BAD)));
                    });
                }
            });
            assert_eq!(cache.metrics().failed_pages, 1);
        });
    }
}

#[test]
fn as_an_ordinary_user() {
    memobj_sim::process::rerun_as_ordinary_user("as_an_ordinary_user");
}
