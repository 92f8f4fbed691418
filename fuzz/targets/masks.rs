//! Masks, templates and digit maps of any text match any number without a panic.
#![no_main]

use domain::routing::{
    digitmap::Digitmap,
    mask::{Mask, symbols},
    template::Template,
};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let (pattern, number) = text.split_once('\n').unwrap_or((text, "89001758964"));
    let mask = pattern.parse::<Mask>().ok();
    let symbols = symbols(number);
    if let (Some(mask), Some(symbols)) = (&mask, &symbols) {
        mask.matches(symbols);
        assert_eq!(mask.as_str().parse::<Mask>().as_ref(), Ok(mask));
    }
    if let Ok(template) = pattern.parse::<Template>() {
        template.apply(number, mask.as_ref());
    }
    if let (Ok(map), Some(symbols)) = (pattern.parse::<Digitmap>(), &symbols) {
        map.progress(symbols);
    }
});
