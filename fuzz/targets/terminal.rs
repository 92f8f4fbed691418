//! Any bytes of a terminal leave the line editor and the pager whole.
#![no_main]

use cocon::{editor::Editor, pager::Pager};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let (mut editor, mut show) = (Editor::default(), String::new());
    for byte in bytes {
        if let Some(cocon::editor::Key::Line(line)) = editor.byte(*byte, &mut show) {
            editor.remember(&line);
        }
    }
    let rows = usize::from(bytes.first().copied().unwrap_or(0) % 30);
    if let Some(mut pager) = Pager::begin(&String::from_utf8_lossy(bytes), rows, &mut show) {
        for byte in bytes {
            if !pager.byte(*byte, &mut show) {
                break;
            }
        }
    }
});
