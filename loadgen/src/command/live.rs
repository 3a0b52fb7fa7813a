//! What is shown while a run goes on: a moving line in a terminal, plain lines elsewhere, nothing when quiet.
//!
//! It goes to stderr, so that tables and JSON on stdout can be piped. It reads the clients' counters and disturbs them
//! in nothing.

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use loadgen::job::{Pace, Progress};
use loadgen::plan::Level;
use loadgen::report::figures::{count, percent, rounded};
use loadgen::report::run::LevelFinding;
use loadgen::report::table;
use std::io::{self, IsTerminal, Write};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// Time between two plain lines of one level.
const LINE_EVERY: Duration = Duration::from_secs(5);
/// Time that a shown rate is taken over, at least.
const RATE_OVER: Duration = Duration::from_millis(900);

/// How it is shown.
enum Surface {
    Quiet,
    Lines,
    Terminal,
}

/// The display.
pub struct Live {
    surface: Surface,
    bar: Option<ProgressBar>,
    level: u32,
    began: Instant,
    lined_at: Instant,
    /// What was answered when the shown rate was last taken, and that rate.
    rated: (Instant, u64, f64),
}

impl Live {
    /// On stderr.
    pub fn new(quiet: bool) -> Self {
        let surface = match quiet {
            true => Surface::Quiet,
            false if io::stderr().is_terminal() => Surface::Terminal,
            false => Surface::Lines,
        };
        let now = Instant::now();
        Self { surface, bar: None, level: 0, began: now, lined_at: now, rated: (now, 0, 0.0) }
    }

    /// A line that stays.
    pub fn say(&self, line: &str) {
        match (&self.surface, &self.bar) {
            (Surface::Quiet, _) => {}
            (_, Some(bar)) => bar.println(line),
            // Nothing can be done about a stderr that is gone.
            _ => drop(writeln!(io::stderr(), "{line}")),
        }
    }

    /// A level begins, to take so long with its warm-up.
    pub fn begin(&mut self, level: &Level, pace: Pace, span: Duration) {
        let now = Instant::now();
        (self.level, self.began, self.lined_at, self.rated) = (level.number, now, now, (now, 0, 0.0));
        let offered = match pace {
            Pace::Open => format!("{}/s", count(level.rate)),
            Pace::Closed => "closed loop".to_owned(),
        };
        let head = format!("level {:>2}  {:>5} connections  {offered:>11}", level.number, level.connections);
        if matches!(self.surface, Surface::Terminal) {
            let length = u64::try_from(span.as_millis()).unwrap_or(u64::MAX);
            let bar = ProgressBar::with_draw_target(Some(length), ProgressDrawTarget::stderr());
            let style = ProgressStyle::with_template("{prefix}  [{bar:20}]  {msg}").expect("a fixed template");
            bar.set_style(style.progress_chars("=> "));
            bar.set_prefix(head);
            self.bar = Some(bar);
        }
    }

    /// How far the level is.
    pub fn tick(&mut self, progress: &Progress) {
        let read = |counter: &std::sync::atomic::AtomicU64| counter.load(Ordering::Relaxed);
        let (sent, answered, failed) = (read(&progress.sent), read(&progress.answered), read(&progress.failed));
        let (now, (rated_at, rated_answers, _)) = (Instant::now(), self.rated);
        let over = now - rated_at;
        if over >= RATE_OVER {
            let rate = answered.saturating_sub(rated_answers) as f64 / over.as_secs_f64();
            self.rated = (now, answered, rate);
        }
        let success = match answered + failed {
            0 => "-".to_owned(),
            ended => percent(answered as f64 * 100.0 / ended as f64),
        };
        let rate = match self.rated.2 {
            // Too early for a rate over a while: over what there is.
            0.0 => answered.saturating_sub(rated_answers) as f64 / over.as_secs_f64().max(f64::EPSILON),
            rate => rate,
        };
        let message = format!("{} answers/s, {success}", rounded(rate));
        if let Some(bar) = &self.bar {
            bar.set_position(u64::try_from((now - self.began).as_millis()).unwrap_or(u64::MAX));
            bar.set_message(message);
        } else if now - self.lined_at >= LINE_EVERY {
            self.lined_at = now;
            let seconds = (now - self.began).as_secs();
            self.say(&format!("level {:>2}: {seconds} s, {} sent, {message}", self.level, count(sent)));
        }
    }

    /// The level is over, perhaps without a finding.
    pub fn end(&mut self, finding: Option<&LevelFinding>) {
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
        for line in finding.into_iter().flat_map(table::level_lines) {
            self.say(&line);
        }
    }
}
