//! Stateless drawing: panels, tables, charts, inputs, popups.
//!
//! Called by the views. Must never know the state, a tab or an operation: they are handed what to draw.

pub mod chart;
pub mod cursor;
pub mod fuzzy;
pub mod input;
pub mod painter;
pub mod popup;
pub mod search_list;
pub mod symbols;
pub mod table;
pub mod text_area;
