//! Carries out what the viewer asks for: reads the lines that are to be on the screen.

use crate::review::state::{Ask, Review};
use masternode::tools::logs::blocks::Place;
use masternode::tools::logs::filter::Filter;
use masternode::tools::logs::pages::{Look, Pages};
use masternode::tools::logs::time::named;

/// Shows the newest lines, or the screen that stands again: after a resize, or when more is known.
pub fn refill(review: &mut Review, pages: &Pages) {
    review.progress = pages.progress();
    count_new(review, pages);
    match review.line().map(|line| line.place).filter(|_| !review.following) {
        Some(place) => around(review, pages, place, review.selected.min(review.height.saturating_sub(1))),
        None => newest(review, pages),
    }
}

fn count_new(review: &mut Review, pages: &Pages) {
    let stood_at = review.stood_at.filter(|_| !review.following);
    review.new_lines = stood_at.map_or(0, |place| pages.passing_after(place));
}

fn newest(review: &mut Review, pages: &Pages) {
    let look = pages.before(None, review.height);
    review.searching = look.unfinished;
    review.lines = look.lines;
    review.selected = review.lines.len().saturating_sub(1);
}

/// Shows a line in a row, and what is around it. At the ends of the log the screen stays full.
fn around(review: &mut Review, pages: &Pages, place: Place, row: usize) {
    let above = pages.before(Some(place), row);
    let room = review.height.saturating_sub(above.lines.len());
    let below = pages.from(Some(place), room.max(1));
    review.searching = above.unfinished || below.unfinished;
    review.selected = above.lines.len();
    review.lines = above.lines;
    let missing = room.saturating_sub(below.lines.len());
    review.lines.extend(below.lines);
    if missing > 0
        && let Some(first) = review.lines.first().map(|line| line.place)
    {
        let mut more = pages.before(Some(first), missing);
        review.selected += more.lines.len();
        more.lines.append(&mut review.lines);
        review.lines = more.lines;
    }
    review.selected = review.selected.min(review.lines.len().saturating_sub(1));
}

/// Does what was asked.
pub fn carry_out(review: &mut Review, pages: &Pages, ask: Ask) {
    let here = review.line().map(|line| line.place);
    match ask {
        Ask::Down(count) => {
            let look = pages.from(here, count + 1);
            if let Some(place) = look.lines.last().map(|line| line.place) {
                let row = (review.selected + look.lines.len() - 1).min(review.height.saturating_sub(1));
                around(review, pages, place, row);
            }
        }
        Ask::Up(count) => {
            let look = pages.before(here, count);
            if let Some(place) = look.lines.first().map(|line| line.place) {
                around(review, pages, place, review.selected.saturating_sub(look.lines.len()));
            }
        }
        Ask::First => {
            let look = pages.from(None, 1);
            found(review, pages, &look, "there is nothing to show");
        }
        Ask::Follow => {
            review.following = true;
            newest(review, pages);
        }
        Ask::Level(way, level) => {
            let look = pages.of_level(here, way, level);
            let text = format!("no further {} in this direction", level.name());
            found(review, pages, &look, &text);
        }
        Ask::Goto(place) => around(review, pages, place, review.height / 2),
        Ask::Time(text) => match named(&text, review.now_ms) {
            Some(ms) => found(review, pages, &pages.at_time(ms), "the log ends before that time"),
            None => {
                review.notice =
                    Some(format!("`{text}` is no time: 12:03, 2h, 2026-11-23 or 2026-11-23T12:03:00Z (UTC)"));
            }
        },
        Ask::Filter(text) => filter(review, pages, text),
        // The loop's.
        Ask::Repaint | Ask::Quit => {}
    }
}

fn found(review: &mut Review, pages: &Pages, look: &Look, nothing: &str) {
    match look.lines.first() {
        Some(line) => around(review, pages, line.place, review.height / 2),
        None if look.unfinished => {
            review.notice = Some("not found in 256 MB: wait for the count, or press it again".to_owned());
        }
        None => review.notice = Some(nothing.to_owned()),
    }
}

/// Shows other lines; the cursor stays at its line or the next that is shown.
fn filter(review: &mut Review, pages: &Pages, text: String) {
    let filter = match Filter::parse(&text, review.now_ms) {
        Ok(filter) => filter,
        Err(error) => {
            review.notice = Some(format!("{error}; the filter stays as it was"));
            return;
        }
    };
    pages.set_filter(filter);
    review.filter = text;
    review.progress = pages.progress();
    count_new(review, pages);
    let here = review.line().map(|line| line.place);
    let near = here.and_then(|here| {
        let at_or_after = pages.from(Some(here), 1).lines.into_iter().next();
        at_or_after.or_else(|| pages.before(Some(here), 1).lines.into_iter().next_back())
    });
    match near.filter(|_| !review.following) {
        Some(line) => around(review, pages, line.place, review.selected),
        None => newest(review, pages),
    }
}
