//! What is used of libpocketsphinx and libsphinxbase (5prealpha, Debian's). The crates that bind them lack `ps_add_word` and
//! the words' times.

#![allow(non_camel_case_types)]

use std::ffi::{c_char, c_int, c_long, c_void};

pub enum cmd_ln_t {}
pub enum fsg_model_t {}
pub enum logmath_t {}
pub enum ps_decoder_t {}
pub enum ps_seg_t {}
pub enum ps_nbest_t {}

#[link(name = "pocketsphinx")]
unsafe extern "C" {
    pub fn ps_args() -> *const c_void;
    pub fn ps_init(config: *mut cmd_ln_t) -> *mut ps_decoder_t;
    pub fn ps_free(ps: *mut ps_decoder_t) -> c_int;
    pub fn ps_add_word(
        ps: *mut ps_decoder_t,
        word: *const c_char,
        phones: *const c_char,
        update: c_int,
    ) -> c_int;
    pub fn ps_set_jsgf_string(ps: *mut ps_decoder_t, name: *const c_char, jsgf: *const c_char) -> c_int;
    pub fn ps_get_config(ps: *mut ps_decoder_t) -> *mut cmd_ln_t;
    pub fn ps_set_fsg(ps: *mut ps_decoder_t, name: *const c_char, fsg: *mut fsg_model_t) -> c_int;
    pub fn ps_get_logmath(ps: *mut ps_decoder_t) -> *mut logmath_t;
    pub fn ps_set_allphone_file(ps: *mut ps_decoder_t, name: *const c_char, lm: *const c_char) -> c_int;
    pub fn ps_set_search(ps: *mut ps_decoder_t, name: *const c_char) -> c_int;
    pub fn ps_start_utt(ps: *mut ps_decoder_t) -> c_int;
    pub fn ps_process_raw(
        ps: *mut ps_decoder_t,
        data: *const i16,
        samples: usize,
        no_search: c_int,
        full_utt: c_int,
    ) -> c_int;
    pub fn ps_end_utt(ps: *mut ps_decoder_t) -> c_int;
    pub fn ps_get_hyp(ps: *mut ps_decoder_t, best_score: *mut i32) -> *const c_char;
    pub fn ps_seg_iter(ps: *mut ps_decoder_t) -> *mut ps_seg_t;
    pub fn ps_seg_next(seg: *mut ps_seg_t) -> *mut ps_seg_t;
    pub fn ps_seg_word(seg: *mut ps_seg_t) -> *const c_char;
    pub fn ps_seg_frames(seg: *mut ps_seg_t, first: *mut c_int, last: *mut c_int);
    pub fn ps_nbest(ps: *mut ps_decoder_t) -> *mut ps_nbest_t;
    pub fn ps_nbest_next(nbest: *mut ps_nbest_t) -> *mut ps_nbest_t;
    pub fn ps_nbest_hyp(nbest: *mut ps_nbest_t, score: *mut i32) -> *const c_char;
    pub fn ps_nbest_free(nbest: *mut ps_nbest_t);
}

#[link(name = "sphinxbase")]
unsafe extern "C" {
    /// The arguments are pairs of name and value.
    pub fn cmd_ln_parse_r(
        inout: *mut cmd_ln_t,
        defn: *const c_void,
        argc: c_int,
        argv: *const *const c_char,
        strict: c_int,
    ) -> *mut cmd_ln_t;
    pub fn cmd_ln_free_r(config: *mut cmd_ln_t) -> c_int;
    pub fn cmd_ln_set_int_r(config: *mut cmd_ln_t, name: *const c_char, value: c_long);
    pub fn err_set_logfp(stream: *mut c_void) -> *mut c_void;
    pub fn fsg_model_read(stream: *mut c_void, logs: *mut logmath_t, weight: f32) -> *mut fsg_model_t;
    pub fn fsg_model_free(fsg: *mut fsg_model_t) -> c_int;
}

unsafe extern "C" {
    /// A stream that reads this memory (POSIX).
    pub fn fmemopen(memory: *mut c_void, size: usize, mode: *const c_char) -> *mut c_void;
    pub fn fclose(stream: *mut c_void) -> c_int;
}
