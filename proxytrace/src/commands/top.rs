//! `proxytrace top`: how things are, live, on the whole terminal.

use std::{
    io::{self, IsTerminal as _, Write as _},
    process::ExitCode,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use jiff::{SignedDuration, tz::TimeZone};
use ratatui::{
    DefaultTerminal, Terminal,
    backend::TestBackend,
    crossterm::event::{self, Event, KeyCode, KeyEventKind, KeyModifiers},
};
use tokio::sync::{mpsc, watch};

use super::{
    Call, Run, block_on,
    display::stdout_colour,
    observer::Observer,
    options::{AskAgent, Tracing},
    shutdown::Shutdown,
};
use crate::{
    exit::Failure,
    model::UpstreamKey,
    status::Status,
    threads,
    top::{Details, Glimpse, Key, Look, MINUTES, Reaction, Top, draw, height, lines},
};

/// How often it looks.
const EVERY: Duration = Duration::from_secs(2);

/// How often it asks for the minutes of all upstreams, and for all that is known of one.
const SELDOM: Duration = Duration::from_secs(10);

/// How much of the past is shown of an upstream, and how many of its records.
const HOUR: SignedDuration = SignedDuration::from_hours(1);
const RECORDS: SignedDuration = SignedDuration::from_mins(10);

/// The width of what is printed where there is no terminal.
const WIDTH: u16 = 120;

/// Options of `proxytrace top`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Print the table once, and end.
    #[arg(long)]
    once: bool,
    #[command(flatten)]
    agent: AskAgent,
    #[command(flatten)]
    tracing: Tracing,
}

impl Run for Args {
    // What is logged would stand in the middle of the screen.
    const LOG_LEVEL: &str = "error";

    /// Shows how things are until it is told to end.
    ///
    /// # Errors
    /// Standard output is no terminal, there is no agent, and the host does not let us trace.
    fn run(&self, _: Call<'_>) -> anyhow::Result<ExitCode> {
        block_on(run(self))
    }
}

async fn run(args: &Args) -> anyhow::Result<ExitCode> {
    if args.once {
        return print(args).await;
    }
    if !io::stdout().is_terminal() {
        anyhow::bail!("standard output is no terminal: use --once, or proxytrace status");
    }
    let shutdown = Shutdown::start()?;
    let (keys, mut pressed) = mpsc::unbounded_channel();
    let mut screen = Screen::open(keys)?;
    screen.draw()?;
    let (asked, wanted) = watch::channel(None);
    let (seen, mut glimpses) = mpsc::channel(1);
    let looking = look(args, wanted, seen);
    tokio::pin!(looking);
    loop {
        tokio::select! {
            () = shutdown.requested() => break,
            ended = &mut looking => {
                ended?;
                break;
            }
            event = pressed.recv() => {
                let Some(event) = event else { break };
                match screen.take(&event) {
                    Reaction::Quit => break,
                    Reaction::Ask | Reaction::Draw => {}
                }
                asked.send_if_modified(|asked| {
                    let wanted = screen.top.looked_at().cloned();
                    std::mem::replace(asked, wanted.clone()) != wanted
                });
            }
            Some(glimpse) = glimpses.recv() => match glimpse {
                Ok(glimpse) => screen.top.show(glimpse),
                Err(why) => screen.top.note_trouble(why),
            }
        }
        screen.draw()?;
    }
    Ok(ExitCode::SUCCESS)
}

/// What is seen, or why nothing is.
type Seen = Result<Glimpse, String>;

/// Looks every two seconds, and as soon as somebody wants to know more of an upstream.
async fn look(
    args: &Args,
    mut wanted: watch::Receiver<Option<UpstreamKey>>,
    seen: mpsc::Sender<Seen>,
) -> anyhow::Result<()> {
    let mut observer = Observer::open(&args.agent, &args.tracing).await?;
    let mut minutes_asked: Option<Instant> = None;
    let mut details_asked: Option<(UpstreamKey, Instant)> = None;
    loop {
        let begun = Instant::now();
        let key = wanted.borrow_and_update().clone();
        let is_due = |asked: Option<Instant>| asked.is_none_or(|asked| asked.elapsed() >= SELDOM);
        let asks_minutes = is_due(minutes_asked);
        let asked =
            details_asked.as_ref().filter(|(of, _)| Some(of) == key.as_ref()).map(|(_, asked)| *asked);
        let asks_details = key.clone().filter(|_| is_due(asked));
        match glimpse(&observer, asks_minutes, asks_details.clone()).await {
            Ok(glimpse) => {
                if asks_minutes {
                    minutes_asked = Some(begun);
                }
                if let Some(of) = asks_details {
                    details_asked = Some((of, begun));
                }
                let _ = seen.send(Ok(glimpse)).await;
            }
            // An agent that is restarted is there again in a moment.
            Err(error) if observer.is_agent() => {
                let _ = seen.send(Err(format!("{error:#}"))).await;
            }
            Err(error) => return Err(error),
        }
        tokio::select! {
            waited = observer.wait(EVERY) => waited?,
            changed = wanted.changed() => changed.context("nobody looks any more")?,
        }
    }
}

async fn glimpse(
    observer: &Observer,
    asks_minutes: bool,
    details: Option<UpstreamKey>,
) -> anyhow::Result<Glimpse> {
    let status = observer.look().await?;
    let minutes = match asks_minutes {
        true => Some(observer.minutes(status.time - SignedDuration::from_mins(MINUTES as i64)).await?),
        false => None,
    };
    let details = match details {
        Some(of) => Some(self::details(observer, &status, of).await?),
        None => None,
    };
    Ok(Glimpse { status, minutes, details })
}

async fn details(observer: &Observer, status: &Status, of: UpstreamKey) -> anyhow::Result<Details> {
    let (routes, minutes) = (observer.routes().await?, observer.minutes(status.time - HOUR).await?);
    Ok(Details::new(of, routes, minutes, observer.records(RECORDS).await?))
}

/// Prints the table as it is now, all of it.
async fn print(args: &Args) -> anyhow::Result<ExitCode> {
    let observer = Observer::open(&args.agent, &args.tracing).await?;
    let glimpse = glimpse(&observer, true, None).await?;
    let is_wrong = glimpse.status.is_wrong();
    let mut top = Top::default();
    top.show(glimpse);
    let width = terminal_size::terminal_size_of(io::stdout()).map_or(WIDTH, |(width, _)| width.0);
    let look = Look { colour: crate::output::Colour::Off, zone: TimeZone::system() };
    let mut terminal = Terminal::new(TestBackend::new(width, height(&top, width, &look)))?;
    terminal.draw(|frame| draw(frame, &mut top, &look))?;
    let mut out = io::stdout().lock();
    for line in lines(terminal.backend().buffer()) {
        writeln!(out, "{line}")?;
    }
    Ok(if is_wrong { Failure::Failed.into() } else { ExitCode::SUCCESS })
}

/// The terminal, which is given back as it was, whatever happens.
struct Screen {
    terminal: DefaultTerminal,
    top: Top,
    look: Look,
}

impl Screen {
    /// Takes the terminal, and begins to hand on what is typed.
    fn open(keys: mpsc::UnboundedSender<Event>) -> anyhow::Result<Self> {
        // A panic gives it back as well.
        let terminal = ratatui::try_init().context("take the terminal")?;
        let screen = Self {
            terminal,
            top: Top::default(),
            look: Look { colour: stdout_colour(), zone: TimeZone::system() },
        };
        threads::start_without_capabilities("keys", move || {
            // What it opens for that is refused once privileges are given up.
            event::poll(Duration::ZERO).context("read the keyboard")?;
            Ok(move || {
                while let Ok(event) = event::read() {
                    if keys.send(event).is_err() {
                        return;
                    }
                }
            })
        })?;
        Ok(screen)
    }

    fn draw(&mut self) -> io::Result<()> {
        let Self { terminal, top, look } = self;
        terminal.draw(|frame| draw(frame, top, look)).map(drop)
    }

    fn take(&mut self, event: &Event) -> Reaction {
        let Event::Key(event) = event else { return Reaction::Draw };
        if event.kind == KeyEventKind::Release {
            return Reaction::Draw;
        }
        let has_control = event.modifiers.contains(KeyModifiers::CONTROL);
        let key = match event.code {
            KeyCode::Char('c') if has_control => return Reaction::Quit,
            KeyCode::Char(_) if has_control => return Reaction::Draw,
            KeyCode::Char(c) => Key::Char(c),
            KeyCode::Up => Key::Up,
            KeyCode::Down => Key::Down,
            KeyCode::PageUp => Key::PageUp,
            KeyCode::PageDown => Key::PageDown,
            KeyCode::Home => Key::Home,
            KeyCode::End => Key::End,
            KeyCode::Enter => Key::Enter,
            KeyCode::Esc => Key::Escape,
            KeyCode::Backspace => Key::Backspace,
            _ => return Reaction::Draw,
        };
        self.top.press(key)
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        ratatui::restore();
    }
}
