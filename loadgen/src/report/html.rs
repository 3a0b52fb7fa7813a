//! The run as one page that needs nothing else: styles and plots stand in it, there is no script, and its policy lets
//! no browser fetch anything.
//!
//! The page is put together here; its plots, tiles and tables have rooms of their own.

mod escape;
mod plot;
mod plots;
mod tables;
mod tiles;

use super::figures::{cores, time};
use super::run::{Protocol, Run};
use crate::job::{DatagramFormat, Pace, Target};
use escape::escape;
use std::fmt::Write;
use std::time::Duration;

/// Assets named in the settings; the others are counted.
const ASSETS_NAMED_MAX: usize = 12;

/// The page.
#[must_use]
pub fn render(run: &Run) -> String {
    let mut out = String::with_capacity(256 * 1_024);
    // Writing to a string does not fail, here and below.
    let _ = write!(
        out,
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\n\
         <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">\n\
         <meta name=\"viewport\" content=\"width=device-width,initial-scale=1\">\n\
         <meta name=\"color-scheme\" content=\"light dark\">\n\
         <title>{}</title>\n<style>\n{}</style></head><body><main>\n",
        escape(&title(run)),
        include_str!("html/style.css")
    );
    header(run, &mut out);
    tiles::write(run, &mut out);
    remarks(run, &mut out);
    required(run, &mut out);
    if !run.levels.is_empty() {
        out.push_str("<h2>Level by level</h2>\n<div class=\"plots\">\n");
        plots::write(run, &mut out);
        out.push_str("</div>\n");
        tables::write(run, &mut out);
    }
    faults(run, &mut out);
    settings(run, &mut out);
    footer(run, &mut out);
    out.push_str("</main></body></html>\n");
    out
}

/// `TCP and UDP`.
fn protocols(run: &Run) -> String {
    run.protocols().map(|protocol| protocol.to_string()).collect::<Vec<_>>().join(" and ")
}

fn title(run: &Run) -> String {
    let names: Vec<&str> = run.job.targets.iter().map(|target| target.name.as_str()).collect();
    match names.as_slice() {
        [first, _, _, _, ..] => format!("Load test of {first} and {} more", names.len() - 1),
        names => format!("Load test of {}", names.join(", ")),
    }
}

fn header(run: &Run, out: &mut String) {
    let pace = match run.job.pace {
        Pace::Open => "open schedule",
        Pace::Closed => "closed loop",
    };
    let levels = if run.levels.len() == 1 { "1 level".to_owned() } else { format!("{} levels", run.levels.len()) };
    let _ = writeln!(
        out,
        "<header><h1>{}</h1><p>{} &middot; {} &middot; {pace} &middot; {levels} of {} s</p></header>",
        escape(&title(run)),
        escape(&httpdate::fmt_http_date(run.began)),
        protocols(run),
        run.job.duration.as_secs_f64(),
    );
}

fn remarks(run: &Run, out: &mut String) {
    list("card remarks", &run.remarks(), out);
}

/// A list in a box, unless it is empty.
fn list(class: &str, lines: &[String], out: &mut String) {
    if lines.is_empty() {
        return;
    }
    let _ = write!(out, "<div class=\"{class}\"><ul>");
    for line in lines {
        let _ = write!(out, "<li>{}</li>", escape(line));
    }
    out.push_str("</ul></div>\n");
}

fn required(run: &Run, out: &mut String) {
    if run.verdicts.is_empty() {
        return;
    }
    out.push_str("<h2>Required</h2>\n<div class=\"card\">");
    for verdict in &run.verdicts {
        let (class, sign) = if verdict.held { ("good", "&#10003;") } else { ("bad", "&#10007;") };
        let _ = write!(out, "<div><span class=\"{class}\">{sign}</span> {}</div>", escape(&verdict.to_string()));
    }
    out.push_str("</div>\n");
}

fn faults(run: &Run, out: &mut String) {
    let lines: Vec<String> = run.faults().map(|(place, fault)| format!("{place}: {fault}")).collect();
    if !lines.is_empty() {
        out.push_str("<h2>What went wrong</h2>\n");
    }
    list("card faults", &lines, out);
}

fn settings(run: &Run, out: &mut String) {
    out.push_str("<h2>How it was driven</h2>\n<div class=\"columns\">\n");
    pairs(&driven(run), out);
    pairs(&machine(run), out);
    out.push_str("</div>\n");
}

fn pairs(pairs: &[(&str, String)], out: &mut String) {
    out.push_str("<div class=\"card\"><dl>");
    for (name, value) in pairs {
        let _ = write!(out, "<dt>{name}</dt><dd>{}</dd>", escape(value));
    }
    out.push_str("</dl></div>\n");
}

fn driven(run: &Run) -> Vec<(&'static str, String)> {
    let job = &run.job;
    let address = |target: &Target| {
        let tcp = target.tcp.map(|address| format!("TCP {address}"));
        let udp = target.udp.map(|address| format!("UDP {address}"));
        let both: Vec<String> = tcp.into_iter().chain(udp).collect();
        format!("{} ({})", target.name, both.join(", "))
    };
    let targets: Vec<String> = job.targets.iter().map(address).collect();
    let assets: Vec<&str> = job.assets.iter().take(ASSETS_NAMED_MAX).map(shared::asset::Symbol::as_str).collect();
    let more = job.assets.len().saturating_sub(ASSETS_NAMED_MAX);
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    let mut pairs = vec![
        ("Targets", targets.join("; ")),
        (
            "Latency",
            match job.pace {
                Pace::Open => "from the intended send time to the answer, whatever came between".to_owned(),
                Pace::Closed => "from sending to the answer: under overload too good to be true".to_owned(),
            },
        ),
        ("In flight on a TCP connection", format!("at most {}", job.pipeline)),
    ];
    if Protocol::Udp.is_driven_by(job) {
        let form = match job.format {
            DatagramFormat::Binary => "64-byte signed frames",
            DatagramFormat::Json => "JSON",
        };
        let trains = if job.train > 1 { format!(", in trains of {}", job.train) } else { ", one by one".to_owned() };
        pairs.push(("Datagrams", format!("{form}{trains}")));
    }
    pairs.push(("Assets asked for", assets.join(", ") + &more));
    pairs.push(("Each level", format!("{} warm-up, then {} counted", span(job.warm_up), span(job.duration))));
    pairs.push(("An answer is", format!("late after {}, lost after {}", span(job.late_after), span(job.lost_after))));
    pairs.push(("A price is too old at", span(job.age_max)));
    pairs
}

fn span(duration: Duration) -> String {
    time(u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX))
}

fn machine(run: &Run) -> Vec<(&'static str, String)> {
    let machine = &run.machine;
    let threads = match run.job.cpus.as_slice() {
        [] => format!("{} (not pinned)", run.job.threads),
        cpus => format!(
            "{}, pinned to CPU {}",
            cpus.len(),
            cpus.iter().map(usize::to_string).collect::<Vec<_>>().join(", ")
        ),
    };
    let mut pairs = vec![
        ("Generator's CPU", format!("{} ({} allowed)", machine.cpu_model, machine.cpus_allowed)),
        ("Kernel", machine.kernel.clone()),
        ("Generator's threads", threads),
    ];
    if let Some(idle) = machine.server_idle_cores {
        pairs.push(("Server before it was asked", format!("{} cores", cores(idle))));
    }
    pairs.extend(machine.noise.iter().map(|noise| ("The machine's own noise", noise.to_string())));
    pairs
}

fn footer(run: &Run, out: &mut String) {
    let how = match run.job.pace {
        Pace::Open => {
            "Requests are sent on a schedule that does not wait for answers, and a latency counts from the time at which \
             its request was due: what a server delays, all that stand behind it pay for, as users would. "
        }
        Pace::Closed => {
            "A closed loop sends when it is answered: it finds the highest rate, and hides the waiting that a fixed rate \
             would show. "
        }
    };
    let _ = writeln!(
        out,
        "<footer><p>{how}Success is right answers in time per request that was due. Answers are checked: asset \
         (a binary reply names none), request id or order, sequence not going back, age (of a binary reply: by this \
         machine's clock, from when the server received the price). CPU per request is told where all servers run on \
         this machine; it is that of the whole process, its feeds included.</p>\
         <p>trinity-stress {}</p></footer>",
        env!("CARGO_PKG_VERSION")
    );
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::LEVELS;
    use crate::report::run::Ending;
    use crate::report::sample;

    /// Renders and checks what holds for every page.
    #[track_caller]
    fn check(run: &Run) -> String {
        let page = render(run);
        for word in ["NaN", "inf\"", "canary", "src=", "href=", "url(", "@import", "<script", "http://", "https://"] {
            assert!(!page.contains(word), "{word} is in the page");
        }
        for tag in ["svg", "figure", "table", "tr", "div", "ul", "li", "g", "dl"] {
            let opened = page.matches(&format!("<{tag} ")).count() + page.matches(&format!("<{tag}>")).count();
            assert_eq!(opened, page.matches(&format!("</{tag}>")).count(), "<{tag}>");
        }
        assert!(page.ends_with("</html>\n"));
        page
    }

    #[test]
    fn pages_of_every_kind_are_whole_and_fetch_nothing() {
        let all: Vec<u32> = LEVELS.iter().map(|level| level.number).collect();
        for (levels, protocols, targets) in [
            (&all[..], &Protocol::ALL[..], 3),
            (&all[..], &[Protocol::Tcp][..], 1),
            (&[1][..], &[Protocol::Udp][..], 1),
            (&[1][..], &Protocol::ALL[..], 5),
        ] {
            let page = check(&sample::run(levels, protocols, targets));
            assert!(page.contains("node-0&lt;&amp;&quot;&gt;") && !page.contains("node-0<"));
        }
    }

    #[test]
    fn a_page_without_answers_is_a_page() {
        let page = check(&sample::silent());
        assert!(page.contains("nothing was answered") && page.contains("no longer takes connections"));
        let mut none = sample::silent();
        none.levels.clear();
        none.ending = Ending::Stopped;
        assert!(check(&none).contains("0 of 1 levels ran"));
    }
}
