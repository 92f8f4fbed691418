//! Any bytes of a terminal leave the line editor and the pager whole.
#![no_main]

use cocon::{
    editor::Editor,
    pager::{Pager, Size},
};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let (mut editor, mut show) = (Editor::default(), String::new());
    editor.resized(usize::from(bytes.get(1).copied().unwrap_or(0) % 100));
    editor.behind("admin@[ds1@ecss1#HYPHA]:/$ ");
    for byte in bytes {
        if let Some(cocon::editor::Key::Line(line)) = editor.byte(*byte, &mut show) {
            editor.remember(&line);
        }
    }
    let rows = usize::from(bytes.first().copied().unwrap_or(0) % 30);
    let size = Size { rows, columns: usize::from(bytes.get(2).copied().unwrap_or(0)) };
    if let Some(mut pager) = Pager::begin(&String::from_utf8_lossy(bytes), size, &mut show) {
        for byte in bytes {
            if !pager.byte(*byte, &mut show) {
                break;
            }
        }
    }
});
