//! How the screen looks: its colours, and the clock of those who look.

use jiff::tz::TimeZone;
use ratatui::style::{Color, Modifier, Style};

use crate::{
    output::{Colour, Layout},
    status::State,
};

/// How the screen looks.
#[derive(Clone, Debug)]
pub struct Look {
    /// Whether it has colours.
    pub colour: Colour,
    /// Where the clock is that people look at.
    pub zone: TimeZone,
}

impl Look {
    pub(super) fn style(&self, colour: Color) -> Style {
        match self.colour {
            Colour::On => Style::new().fg(colour),
            Colour::Off => Style::new(),
        }
    }

    /// Colours that are told apart whatever eyes one has: no red beside green.
    pub(super) fn of_state(&self, state: State) -> Style {
        match state {
            State::Down => self.style(Color::LightRed).add_modifier(Modifier::BOLD),
            State::Failing => self.style(Color::Yellow),
            State::Ok => Style::new(),
            State::Quiet => Style::new().add_modifier(Modifier::DIM),
        }
    }

    pub(super) fn layout(&self, width: u16) -> Layout {
        Layout { colour: Colour::Off, zone: self.zone.clone(), width: width.into(), is_wide: false }
    }
}
