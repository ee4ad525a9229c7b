//! How the Blocklist tab looks.

use ratatui::layout::Rect;

use crate::tui::geometry::{ListId, Target};
use crate::tui::state::State;
use crate::tui::tab_blocklist::{self, View};
use crate::tui::text;
use crate::tui::theme::Role;
use crate::tui::view::{empty_page, panel_title, stale, views_panel};
use crate::tui::widgets::painter::{Emphasis, Painter};
use crate::tui::widgets::table::{self, Cell, Column, Table, Width};
use crate::types::address::{BlockEntry, BlockSource, ListedNetwork, short};
use crate::types::calls::addresses::NetworkList;

/// Draws it.
pub fn draw(state: &State, painter: &mut Painter<'_>, area: Rect) {
    match state.blocklist.view {
        View::Blocked => {
            let rows = tab_blocklist::block_rows(state);
            let page = &state.world.blocks;
            let read = page.value.as_ref().map(Vec::len);
            let total = usize::try_from(state.world.blocks_total).unwrap_or(usize::MAX);
            let inside = draw_frame(state, painter, area, rows.len(), read.map(|read| read.max(total)));
            stale(painter, area, page);
            if rows.is_empty() {
                let all = read.filter(|_| has_filter(state)).unwrap_or(0);
                empty_page(state, painter, inside, page, all, &["blocklist.empty", "blocklist.empty_hint"]);
            } else {
                draw_blocks(state, painter, inside, &rows);
            }
        }
        View::Networks(list) => {
            let rows = tab_blocklist::network_rows(state, list);
            let page = state.world.networks(list);
            let all = page.value.as_ref().map(Vec::len);
            let inside = draw_frame(state, painter, area, rows.len(), all);
            stale(painter, area, page);
            if rows.is_empty() {
                let lines = match list {
                    NetworkList::Allow => ["blocklist.allowed_empty", "blocklist.allowed_hint"],
                    NetworkList::Trusted => ["blocklist.trusted_empty", "blocklist.trusted_hint"],
                };
                empty_page(state, painter, inside, page, all.unwrap_or(0), &lines);
            } else {
                draw_networks(state, painter, inside, &rows);
            }
        }
    }
}

fn has_filter(state: &State) -> bool {
    !state.filter().input.is_empty()
}

fn draw_frame(state: &State, painter: &mut Painter<'_>, area: Rect, shown: usize, all: Option<usize>) -> Rect {
    let names = View::ALL.map(View::title);
    let front = View::ALL.iter().position(|view| *view == state.blocklist.view).unwrap_or(0);
    let title = panel_title(state, names[front], shown, all);
    views_panel(painter, area, &names, front, Some(&title), Emphasis::Focused)
}

fn source(source: BlockSource) -> &'static str {
    match source {
        BlockSource::Manual => "source.manual",
        BlockSource::FailedAuthentication => "source.failed_authentication",
        BlockSource::Score => "source.score",
        BlockSource::Import => "source.import",
    }
}

fn draw_blocks(state: &State, painter: &mut Painter<'_>, area: Rect, rows: &[&BlockEntry]) {
    let say = |key| state.words.say(key);
    let columns = [
        Column::text(say("column.network"), Width::Share { min: 18, weight: 1 }, 0),
        Column::text(say("column.left"), Width::Exact(11), 0),
        Column::text(say("column.source"), Width::Exact(16), 2),
        Column::number(say("column.failures"), 8, 3),
        Column::text(say("column.since"), Width::Exact(16), 4),
        Column::text(say("column.reason"), Width::Share { min: 16, weight: 3 }, 1),
    ];
    let selected = tab_blocklist::selected_block(state, rows);
    let table = Table { list: ListId::Blocks, columns: &columns, rows: rows.len(), selected, target: Target::Row };
    table::draw(painter, area, &table, |index, column| {
        let entry = rows[index];
        match column {
            0 => Cell::new(short(entry.network), Role::Text),
            1 => match entry.expires {
                Some(expires) => Cell::new(text::span(expires.since(state.now)), Role::Warn),
                None => Cell::new(state.words.say("blocklist.permanent"), Role::Error),
            },
            2 => Cell::new(state.words.say(source(entry.source)), Role::Muted),
            3 => Cell::new(entry.failures.to_string(), if entry.failures > 0 { Role::Text } else { Role::Faint }),
            4 => Cell::new(state.words.date_time(entry.created), Role::Muted),
            _ => Cell::outside(&entry.reason, Role::Text),
        }
    });
}

fn draw_networks(state: &State, painter: &mut Painter<'_>, area: Rect, rows: &[&ListedNetwork]) {
    let say = |key| state.words.say(key);
    let columns = [
        Column::text(say("column.network"), Width::Share { min: 20, weight: 1 }, 0),
        Column::text(say("column.since"), Width::Exact(16), 1),
        Column::text(say("column.note"), Width::Share { min: 16, weight: 3 }, 0),
    ];
    let selected = tab_blocklist::selected_network(state, rows);
    let table = Table { list: ListId::Networks, columns: &columns, rows: rows.len(), selected, target: Target::Row };
    table::draw(painter, area, &table, |index, column| {
        let entry = rows[index];
        match column {
            0 => Cell::new(short(entry.network), Role::Text),
            1 => Cell::new(state.words.date_time(entry.created), Role::Muted),
            _ => Cell::outside(&entry.note, Role::Text),
        }
    });
}
