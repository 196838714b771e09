//! `proxytrace status`: how things are, on one screen.

use std::{
    io::{self, IsTerminal as _, Write as _},
    process::ExitCode,
    time::{Duration, Instant},
};

use jiff::{SignedDuration, tz::TimeZone};

use super::{
    Call, Run, block_on,
    display::stdout_colour,
    observer::Observer,
    options::{AskAgent, Tracing},
};
use crate::{
    escape,
    exit::Failure,
    output::{Detail, Layout, detail, overview},
    status::{Standing, Status, Upstream, is_about},
};

/// How often `--watch` looks.
const EVERY: Duration = Duration::from_secs(2);

/// An agent that has just begun does not know yet what runs: it is asked again for so long, as often as that.
const STARTS_WITHIN: Duration = Duration::from_secs(5);
const SOON: Duration = Duration::from_millis(100);

/// How much of the past is shown of an upstream.
const LAST: SignedDuration = SignedDuration::from_hours(1);

/// Options of `proxytrace status`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Show this upstream in detail, by the name in nginx's configuration: addresses, the routes that lead there, the last hour.
    #[arg(value_name = "UPSTREAM")]
    upstream: Option<String>,
    /// Print JSON: one object.
    #[arg(long)]
    json: bool,
    /// List every upstream, with its addresses, in lines that may be long.
    #[arg(long)]
    wide: bool,
    /// Show it again every two seconds.
    #[arg(long)]
    watch: bool,
    #[command(flatten)]
    agent: AskAgent,
    #[command(flatten)]
    tracing: Tracing,
}

impl Run for Args {
    /// Shows how things are: 0 where nothing is wrong, 1 where something is or where that is not known.
    ///
    /// # Errors
    /// There is no agent, and the host does not let us trace.
    fn run(&self, _: Call<'_>) -> anyhow::Result<ExitCode> {
        block_on(run(self))
    }
}

async fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let mut observer = Observer::open(&args.agent, &args.tracing).await?;
    let begun = Instant::now();
    loop {
        let status = match observer.look().await {
            // An agent that is restarted is there again in a moment.
            Err(error) if args.watch && observer.is_agent() => {
                ::tracing::warn!("{error:#}");
                observer.wait(EVERY).await?;
                continue;
            }
            looked => looked?,
        };
        if !status.started && !args.watch && begun.elapsed() < STARTS_WITHIN {
            observer.wait(SOON).await?;
            continue;
        }
        let (status, text) = match &args.upstream {
            None => (status, None),
            Some(name) => {
                let status = only(status, name)?;
                let text = if args.json { None } else { Some(details(&observer, &status, args.wide).await?) };
                (status, text)
            }
        };
        show(args, &status, text)?;
        if !args.watch {
            let is_well = status.started && !status.is_wrong();
            return Ok(if is_well { ExitCode::SUCCESS } else { Failure::Failed.into() });
        }
        observer.wait(EVERY).await?;
    }
}

/// What of it is about an upstream.
fn only(mut status: Status, name: &str) -> anyhow::Result<Status> {
    let is_meant = |upstream: &Upstream| upstream.is_called(name);
    if !status.upstreams.iter().any(is_meant) {
        let mut names: Vec<_> =
            status.upstreams.iter().map(|one| escape::printable(&one.upstream).into_owned()).collect();
        names.sort();
        names.dedup();
        let there = match &*names {
            [] => "nothing was connected to yet".to_owned(),
            names => format!("there are {}", names.join(", ")),
        };
        anyhow::bail!("no upstream is called {}; {there}", escape::printable(name));
    }
    status.upstreams.retain(is_meant);
    let Status { upstreams, findings, proxies, .. } = &mut status;
    // What stands about others at its addresses is not asked for.
    let is_asked = |of: &Upstream, one: &Standing| {
        is_about(&one.finding, &of.proxy, &name.into()) || is_about(&one.finding, &of.proxy, &of.upstream)
    };
    findings.retain(|one| upstreams.iter().any(|of| is_asked(of, one)));
    proxies.retain(|proxy| upstreams.iter().any(|of| of.proxy == proxy.proxy));
    Ok(status)
}

/// Shows a status, in words that are there already or those of all.
fn show(args: &Args, status: &Status, text: Option<String>) -> anyhow::Result<()> {
    let mut out = io::stdout().lock();
    if args.json {
        serde_json::to_writer(&mut out, status).map_err(io::Error::from)?;
        out.write_all(b"\n")?;
    } else {
        let layout = layout(args.wide);
        if args.watch && io::stdout().is_terminal() {
            // To the upper left corner, and everything below goes.
            out.write_all(b"\x1b[H\x1b[2J")?;
        }
        out.write_all(text.unwrap_or_else(|| overview(status, &layout)).as_bytes())?;
    }
    Ok(out.flush()?)
}

/// As the terminal is.
fn layout(is_wide: bool) -> Layout {
    Layout { colour: stdout_colour(), zone: TimeZone::system(), width: 80, is_wide }
}

/// The upstreams of a status in detail.
async fn details(observer: &Observer, status: &Status, is_wide: bool) -> anyhow::Result<String> {
    let routes = observer.routes().await?;
    // In some seconds there are none.
    let minutes = if observer.is_agent() { Some(observer.minutes(status.time - LAST).await?) } else { None };
    let (layout, minutes) = (layout(is_wide), minutes.as_deref());
    let of = |upstream| detail(&Detail { status, upstream, routes: &routes, minutes }, &layout);
    // What is counted elsewhere has nothing to show by itself.
    Ok(status.upstreams.iter().filter(|of| !of.all_shared).map(of).collect::<Vec<_>>().join("\n"))
}
