//! Detects messages that circle in a ring of 3.x links, where packets do not say which brokers they have passed.
//!
//! If the same topic and payload pass a link again and again, they come from a source that repeats itself or from a
//! message in a ring. Their content does not distinguish them, but this does: a ring stops while its message is held
//! here, a source continues. So a repeated message is held briefly, for a dozen times its interval. If it arrives
//! meanwhile, or faster than before afterwards, it has a source. If it stays away while it is held and returns as soon as
//! it is released, three times, it is circling.
//!
//! Nothing is dropped. A circling message is held for [`SLOWED_BY`] in each lap, as long as it keeps coming.

use std::hash::BuildHasher;
use std::time::{Duration, Instant};

use hashbrown::HashMap;

/// How long a circling message is held in each lap.
pub(super) const SLOWED_BY: Duration = Duration::from_millis(200);

/// The period in which equal messages are counted.
const PERIOD: Duration = Duration::from_secs(10);
/// Equal messages in a period that start a trial.
const WORTH_A_TRIAL: u32 = 30;
/// Most different messages watched; others wait for the next period.
const KNOWN_MAX: usize = 4096;
/// A message is held for this many times its interval.
const INTERVALS_HELD: u32 = 12;
/// The limits of that. Rarer messages are no burden.
const PAUSE_MIN: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(4);
/// The second and third trial take longer, in tenths, so that no source with bursts matches all of them.
const STRETCHES: [u32; 3] = [10, 17, 29];
/// Most copies of a message that may be in a ring at once. If more arrive while they are held, they have a source.
const COPIES_MAX: u32 = 3;
/// Positive trials before a message counts as circling.
const TRIALS: usize = STRETCHES.len();
/// Inconclusive trials before a message is left alone for a while.
const VOID_TRIALS: u32 = 10;
const UNDECIDED_FOR: Duration = Duration::from_mins(1);
/// How long a source is left alone.
const SOURCE_FOR: Duration = Duration::from_mins(10);
/// A message that stays away for this long is no longer circling.
const GONE_AFTER: Duration = Duration::from_secs(30);
/// After its release a message is expected back within this many times its interval.
const BACK_WITHIN: u32 = 4;
const BACK_MIN: Duration = Duration::from_millis(25);
/// A message that arrives in less than this part of its interval after a pause has waited elsewhere.
const FASTER: u32 = 6;

/// The watch over one direction of a link.
pub(super) struct LoopWatch {
    known: HashMap<u64, Known>,
    period_ends: Instant,
    hasher: foldhash::quality::RandomState,
    found: Vec<String>,
    looping: usize,
}

/// The state of equal messages.
enum Known {
    /// Counted in this period.
    Counted(u32),
    /// Under trial.
    Tried(Trial),
    /// It has a source.
    Source { until: Instant },
    /// It goes round.
    Loop { last: Instant },
}

struct Trial {
    positive: usize,
    void: u32,
    /// Between two arrivals, as measured before the last pause.
    interval: Duration,
    step: WatchStep,
}

/// Gaps between arrivals used to measure an interval.
const GAPS_MAX: usize = 12;
const GAPS_MIN: usize = 5;

enum WatchStep {
    /// Measures the interval. After a pause, the first arrival must be soon.
    Measures { last: Option<Instant>, gaps: Vec<Duration>, released: Option<Instant> },
    /// Holds arriving messages.
    Holds { until: Instant, arrivals: u32 },
}

/// What happens to a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Passage {
    /// It passes.
    Free,
    /// It is held until then, or until a trial is over.
    Held(Instant),
}

/// Identifies equal messages.
pub(super) type Fingerprint = u64;

impl LoopWatch {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            known: HashMap::new(),
            period_ends: now + PERIOD,
            hasher: foldhash::quality::RandomState::default(),
            found: Vec::new(),
            looping: 0,
        }
    }

    /// Handles an arriving message.
    pub(super) fn note(
        &mut self,
        topic: &str,
        payload: &[u8],
        now: Instant,
    ) -> (Fingerprint, Passage) {
        if now >= self.period_ends {
            self.end_period(now);
        }
        let fingerprint = self.hasher.hash_one((topic, payload));
        if self.known.len() >= KNOWN_MAX && !self.known.contains_key(&fingerprint) {
            return (fingerprint, Passage::Free);
        }
        let known = self.known.entry(fingerprint).or_insert(Known::Counted(0));
        let passage = known.note(fingerprint, now);
        if let (Known::Loop { .. }, Passage::Free) = (&*known, passage) {
            self.looping += 1;
            self.found.push(topic.to_owned());
            return (fingerprint, Passage::Held(now + SLOWED_BY));
        }
        (fingerprint, passage)
    }

    /// Whether a message held for a trial may pass now.
    pub(super) fn is_released(&mut self, fingerprint: Fingerprint, now: Instant) -> bool {
        match self.known.get_mut(&fingerprint) {
            Some(Known::Tried(trial)) => {
                trial.end_pause(now);
                !matches!(trial.step, WatchStep::Holds { .. })
            }
            Some(Known::Loop { .. }) => false,
            Some(Known::Counted(_) | Known::Source { .. }) | None => true,
        }
    }

    /// The number of circling messages.
    pub(super) fn looping(&self) -> usize {
        self.looping
    }

    /// Topics of messages found circling since the last call.
    pub(super) fn take_found(&mut self) -> Vec<String> {
        std::mem::take(&mut self.found)
    }

    fn end_period(&mut self, now: Instant) {
        self.period_ends = now + PERIOD;
        self.known.retain(|_, known| match known {
            Known::Counted(_) => false,
            Known::Source { until } => *until > now,
            Known::Loop { last } => *last + GONE_AFTER > now,
            Known::Tried(trial) => !trial.is_abandoned(now),
        });
        let loops = self.known.values().filter(|known| matches!(known, Known::Loop { .. }));
        self.looping = loops.count();
    }
}

impl Known {
    /// `Free` for a [`Known::Loop`] means that it was found just now.
    fn note(&mut self, fingerprint: Fingerprint, now: Instant) -> Passage {
        match self {
            Self::Counted(count) if *count + 1 < WORTH_A_TRIAL => {
                *count += 1;
                Passage::Free
            }
            Self::Counted(_) => {
                *self = Self::Tried(Trial::new());
                Passage::Free
            }
            Self::Source { .. } => Passage::Free,
            Self::Loop { last } => {
                *last = now;
                Passage::Held(now + SLOWED_BY)
            }
            Self::Tried(trial) => match trial.note(fingerprint, now) {
                Verdict::Open(passage) => passage,
                Verdict::Source => {
                    *self = Self::Source { until: now + SOURCE_FOR };
                    Passage::Free
                }
                Verdict::Undecided => {
                    *self = Self::Source { until: now + UNDECIDED_FOR };
                    Passage::Free
                }
                Verdict::Loop => {
                    *self = Self::Loop { last: now };
                    Passage::Free
                }
            },
        }
    }
}

enum Verdict {
    Open(Passage),
    Undecided,
    Source,
    Loop,
}

impl Trial {
    fn new() -> Self {
        let step = WatchStep::Measures { last: None, gaps: Vec::new(), released: None };
        Self { positive: 0, void: 0, interval: Duration::ZERO, step }
    }

    fn note(&mut self, fingerprint: Fingerprint, now: Instant) -> Verdict {
        self.end_pause(now);
        match &mut self.step {
            WatchStep::Holds { until, arrivals } => {
                *arrivals += 1;
                match *arrivals > COPIES_MAX {
                    true => Verdict::Source,
                    false => Verdict::Open(Passage::Held(*until)),
                }
            }
            WatchStep::Measures { last: last @ None, released, .. } => {
                *last = Some(now);
                if let Some(released) = *released {
                    let limit = (self.interval * BACK_WITHIN).max(BACK_MIN);
                    match now.saturating_duration_since(released) <= limit {
                        true => self.positive += 1,
                        false => self.void += 1,
                    }
                }
                self.judge()
            }
            WatchStep::Measures { last: Some(last), gaps, released } => {
                gaps.push(now.saturating_duration_since(*last));
                *last = now;
                if gaps.len() < wanted(fingerprint, self.positive, self.void) {
                    return Verdict::Open(Passage::Free);
                }
                let (gaps, released) = (std::mem::take(gaps), *released);
                self.measured(gaps, released, now)
            }
        }
    }

    /// Handles a measured interval, perhaps of messages that were held and released: the message comes from a source, or
    /// is held next.
    fn measured(
        &mut self,
        mut gaps: Vec<Duration>,
        released: Option<Instant>,
        now: Instant,
    ) -> Verdict {
        // The median, so that a pause of another broker does not matter.
        gaps.sort_unstable();
        let interval = gaps.get(gaps.len() / 2).copied().unwrap_or_default();
        // Messages that have waited somewhere arrive faster than before. On average, because copies that were held
        // together arrive together.
        let count = u32::try_from(gaps.len()).unwrap_or(u32::MAX).max(1);
        let mean = gaps.iter().sum::<Duration>() / count;
        let is_faster = released.is_some() && mean < self.interval / FASTER;
        let pause = (interval * INTERVALS_HELD).max(PAUSE_MIN);
        if is_faster || pause > PAUSE_MAX {
            return Verdict::Source;
        }
        let stretch = STRETCHES.get(self.positive).copied().unwrap_or(10);
        self.interval = interval;
        let until = now + pause * stretch / 10;
        self.step = WatchStep::Holds { until, arrivals: 0 };
        Verdict::Open(Passage::Held(until))
    }

    fn judge(&self) -> Verdict {
        match (self.positive >= TRIALS, self.void >= VOID_TRIALS) {
            (true, _) => Verdict::Loop,
            (false, true) => Verdict::Undecided,
            (false, false) => Verdict::Open(Passage::Free),
        }
    }

    fn end_pause(&mut self, now: Instant) {
        if let WatchStep::Holds { until, .. } = self.step
            && until <= now
        {
            let gaps = Vec::new();
            self.step = WatchStep::Measures { last: None, gaps, released: Some(until) };
        }
    }

    fn is_abandoned(&self, now: Instant) -> bool {
        match &self.step {
            WatchStep::Holds { until, .. } => *until + PERIOD < now,
            WatchStep::Measures { last, released, .. } => {
                last.or(*released).is_some_and(|since| since + GONE_AFTER < now)
            }
        }
    }
}

/// The number of gaps to measure, which varies, so that a source with bursts does not pause when we do.
fn wanted(fingerprint: Fingerprint, positive: usize, void: u32) -> usize {
    let trial = u32::try_from(positive).unwrap_or(0) + void;
    let random = fingerprint.rotate_right(trial * 7) % (GAPS_MAX - GAPS_MIN) as u64;
    GAPS_MIN + usize::try_from(random).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LAP: Duration = Duration::from_millis(4);

    /// A ring with so many copies of a message: each comes again a lap after it was let go.
    fn goes_round(copies: u64, laps: usize) -> (LoopWatch, Instant) {
        let mut now = Instant::now();
        let mut watch = LoopWatch::new(now);
        let mut due: Vec<Instant> = (0..copies).map(|copy| now + LAP * copy as u32 / 7).collect();
        for _ in 0..laps {
            due.sort();
            let at = due.remove(0);
            now = now.max(at);
            let leaves = match watch.note("t", b"x", now).1 {
                Passage::Free => now,
                Passage::Held(until) => until,
            };
            due.push(leaves + LAP);
        }
        (watch, now)
    }

    #[test]
    fn a_message_that_goes_round_is_found_and_slowed() {
        // Hashes differ from one to the next.
        for copies in [1, 2, 3].repeat(50) {
            let (mut watch, now) = goes_round(copies, 400);
            assert_eq!(
                (watch.looping(), watch.take_found()),
                (1, vec!["t".to_owned()]),
                "{copies}"
            );
            assert_eq!(watch.note("t", b"x", now).1, Passage::Held(now + SLOWED_BY));
            assert_eq!(watch.note("t", b"y", now).1, Passage::Free);
            // It stays away, and is a message like others.
            watch.note("u", b"", now + GONE_AFTER + 2 * PERIOD);
            assert_eq!(watch.looping(), 0);
        }
    }

    /// The longest time that a message of a source is held, and whether the source was taken for a ring.
    fn speaks(moments: impl Iterator<Item = Duration>) -> Duration {
        let start = Instant::now();
        let mut watch = LoopWatch::new(start);
        let mut longest = Duration::ZERO;
        for moment in moments {
            let now = start + moment;
            if let (_, Passage::Held(until)) = watch.note("t", b"20", now) {
                longest = longest.max(until - now);
            }
            assert_eq!(watch.looping(), 0, "after {moment:?}");
        }
        longest
    }

    #[test]
    fn a_source_that_repeats_itself_is_no_ring() {
        for per_second in [1_u32, 5, 20, 100, 1_000, 50_000] {
            let step = Duration::from_secs(1) / per_second;
            let longest = speaks((0..20_000).map(|number| step * number));
            assert!(longest <= PAUSE_MAX * 3, "{per_second}");
        }
        // In bursts.
        for burst in [2_u32, 5, 8, 12, 30] {
            for gap in [10, 30, 100, 150, 300, 1_000] {
                let moments = (0..5_000).map(|number| {
                    Duration::from_millis(u64::from(number / burst * gap))
                        + Duration::from_micros(200) * (number % burst)
                });
                speaks(moments);
            }
        }
    }

    /// A far broker that sends one message at a time until it is acknowledged holds back what its source says meanwhile.
    #[test]
    fn what_waited_elsewhere_is_no_ring() {
        let start = Instant::now();
        let mut watch = LoopWatch::new(start);
        let (mut now, step) = (start, Duration::from_millis(10));
        for number in 0..5_000_u32 {
            now = (start + step * number).max(now + Duration::from_micros(300));
            if let (_, Passage::Held(until)) = watch.note("t", b"20", now) {
                now = now.max(until);
            }
        }
        assert_eq!(watch.looping(), 0);
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let now = Instant::now();
        let mut watch = LoopWatch::new(now);
        for number in 0..KNOWN_MAX + 10 {
            watch.note("t", &number.to_be_bytes(), now);
        }
        assert_eq!(watch.known.len(), KNOWN_MAX);
        watch.note("t", b"", now + PERIOD);
        assert_eq!(watch.known.len(), 1);
    }
}
