//! Whether the time of a key's check tells how much of a guessed secret is right (SPEC §5.1; SECURITY.md, case 5): Welch's
//! t-test over interleaved measurements, as dudect does it (Reparaz, Balasch, Verbauwhede, "Dude, is my code constant time?",
//! 2017).

use std::hint::black_box;
use std::time::Duration;

use super::HashOutcome;
use super::key_table::{KeyCheck, KeyTable};
use super::key_text::{self, KEY_LENGTH, PREFIX, write_checksum_for_tests};
use crate::types::clock::{Clock, UnixMillis};
use crate::types::ids::KeyId;
use crate::types::key::{KeyLimits, KeyRecord, KeyView};

/// Checks of each class.
const CHECKS: usize = 20_000;
/// Above this a difference is no chance (dudect's threshold).
const THRESHOLD: f64 = 4.5;
/// What a comparison that ends with the first difference always exceeds.
const MOST: f64 = 50.0;
/// Characters before a key's secret, and of it.
const BEFORE: usize = PREFIX.len() + 9;
const SECRET: usize = 43;

/// Characters of the secret that the guesses of the second class have right.
const RIGHT: usize = 40;

/// Another character of the same kind: how a text is read may depend on what stands in it, but not on whether that is right.
fn other(c: char) -> char {
    match c {
        '9' => '0',
        'z' => 'a',
        'Z' => 'A',
        c => char::from_u32(u32::from(c) + 1).unwrap_or(c),
    }
}

/// The right key, and so many wrong ones: two classes that have none of the secret's first 40 characters right, each with always the
/// same wrong ones in their place, then one that has them all right. The rest is random in all.
fn keys() -> (KeyTable, String, [Vec<String>; 3]) {
    let mut random = fastrand::Rng::with_seed(7);
    let (id, secret) = key_text::write(&mut || random.u8(..));
    let right = secret.expose().to_owned();
    let table = KeyTable::new([7; 32]);
    let view = KeyView::unused(id, "timed", "abcd", KeyLimits::default(), UnixMillis(0));
    table.put(KeyRecord { view, hash: "hash".into() });
    table.settle(&right, id, HashOutcome::Matches, UnixMillis(1));
    let begun = &right[..BEFORE + RIGHT];
    let changed = |text: &str| -> String {
        text.chars().enumerate().map(|(at, c)| if at < BEFORE { c } else { other(c) }).collect()
    };
    let (one, another) = (changed(begun), changed(&changed(begun)));
    let guess = |begun: &str, random: &mut fastrand::Rng| {
        let (_, chance) = key_text::write(&mut || random.u8(..));
        let body = format!("{begun}{}", &chance.expose()[BEFORE + RIGHT..BEFORE + SECRET]);
        let checksum = write_checksum_for_tests(&body);
        body + &checksum
    };
    let classes = [one.as_str(), &another, begun].map(|begun| (0..CHECKS).map(|_| guess(begun, &mut random)).collect());
    (table, right, classes)
}

/// Times every key of both classes, in an order by chance, and answers Welch's t.
fn compared(classes: [&Vec<String>; 2], seed: u64, mut check: impl FnMut(&str)) -> f64 {
    let clock = Clock::system();
    let mut order: Vec<(usize, usize)> = (0..2).flat_map(|class| (0..CHECKS).map(move |at| (class, at))).collect();
    fastrand::Rng::with_seed(seed).shuffle(&mut order);
    let mut times = [Vec::with_capacity(CHECKS), Vec::with_capacity(CHECKS)];
    // From the same place each time: where a guess lies in memory is another matter.
    let mut guess = String::with_capacity(KEY_LENGTH);
    for (class, at) in order {
        guess.clear();
        guess.push_str(&classes[class][at]);
        let began = clock.monotonic();
        check(black_box(&guess));
        times[class].push(clock.monotonic() - began);
    }
    // What the machine did meanwhile is cut off, of both alike.
    let mut all: Vec<Duration> = times.concat();
    all.sort_unstable();
    let longest = all[all.len() * 9 / 10];
    let [one, other] = times.map(|times| {
        let kept: Vec<f64> = times.iter().filter(|time| **time <= longest).map(Duration::as_secs_f64).collect();
        #[expect(clippy::cast_precision_loss, reason = "some thousands")]
        let count = kept.len() as f64;
        let mean = kept.iter().sum::<f64>() / count;
        let variance = kept.iter().map(|time| (time - mean).powi(2)).sum::<f64>() / (count - 1.0);
        (mean, variance / count)
    });
    (one.0 - other.0) / (one.1 + other.1).sqrt()
}

/// Case 5. A difference that is there shows in every run; one by chance does not. What two wrong guesses differ by among themselves
/// is the machine's doing: a debug build's path through a text depends a little on what stands in it.
#[test]
fn given_guesses_with_no_and_with_forty_right_characters_then_their_times_do_not_differ() {
    let (table, right, [one, another, forty]) = keys();
    assert!(matches!(table.check(&right, UnixMillis(2)), KeyCheck::Known(_)));
    let least = |what: &str, check: &mut dyn FnMut(&str)| {
        let wrong: Vec<f64> = (1..=4).map(|seed| compared([&one, &another], seed, &mut *check).abs()).collect();
        let found: Vec<f64> = (1..=4).map(|seed| compared([&one, &forty], seed, &mut *check).abs()).collect();
        let threshold = wrong.iter().copied().fold(THRESHOLD, |most, t| most.max(3.0 * t)).min(MOST);
        let least = found.iter().copied().fold(f64::INFINITY, f64::min);
        assert!(least < threshold, "{what}: |t| of right guesses is {found:?}, of wrong ones {wrong:?}");
    };
    least("not hashed yet", &mut |key| {
        assert!(matches!(black_box(table.check(key, UnixMillis(2))), KeyCheck::NeedsHash { .. }));
    });
    let id = KeyId::parse(&right[PREFIX.len()..PREFIX.len() + 8]).expect("an id");
    for key in [&one, &another, &forty].into_iter().flat_map(|class| class.iter().take(2_000)) {
        table.settle(key, id, HashOutcome::Differs, UnixMillis(2));
    }
    least("hashed before", &mut |key| {
        black_box(table.check(key, UnixMillis(2)));
    });
}

/// The test sees a comparison that ends with the first difference.
#[test]
fn a_comparison_that_ends_early_is_seen() {
    let (_, right, [wrong, _, forty]) = keys();
    let early = |key: &str| {
        for (one, other) in key.bytes().zip(right.bytes()) {
            if black_box(one) != black_box(other) {
                return false;
            }
        }
        true
    };
    let found = compared([&wrong, &forty], 1, |key| {
        black_box(early(key));
    });
    assert!(found.abs() > MOST, "t is {found}");
}
