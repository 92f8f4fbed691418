#!/usr/bin/env python3
"""Speech to train the acoustic model on: random words, spoken by voices whose licences allow it, as a telephone hears them.

    corpus.py OUT READER    OUT gets wav/ and etc/; READER prints the reading of each word of its input (hypha speech readings)

Voices: RHVoice's elena and irina (LGPL-2.1+) and aleksandr-hq (CC-BY-SA-4.0), festival's msu_ru_nsh_clunits (BSD-like), and
variants of espeak-ng's Russian (GPL-3+, the voice is the program). RHVoice's anna and aleksandr and espeak-ng's plain voice are
left for measurements.
"""

import concurrent.futures
import os
import random
import re
import subprocess
import sys
import tempfile

NATURAL = {"elena": 260, "irina": 260, "aleksandr-hq": 260}
FESTIVAL = 260
ESPEAK = {v: 40 for v in "m1 m2 m3 m4 m5 m6 m7 f1 f2 f4 f5".split()}
DIGITS = "ноль один два три четыре пять шесть семь восемь девять".split()
SHORT = ["да", "нет"]
LEXICON = "/usr/share/hunspell/ru_RU.dic"


def run(command, text=None):
    return subprocess.run(command, input=text.encode() if text else None, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=True).stdout.decode()


def stressed(words):
    """The words with + before the stressed vowel, as espeak-ng says them."""
    lines = run(["espeak-ng", "-q", "-v", "ru", "--ipa"], "\n".join(w + "." for w in words) + "\n").strip().split("\n")
    if len(lines) != len(words):
        lines = [run(["espeak-ng", "-q", "-v", "ru", "--ipa", w]).strip() for w in words]
    vowels = "aɑʌəɐæeɛiɪoɔuʊɵyɨɯɘ"
    out = []
    for word, ipa in zip(words, lines):
        # Two vowel signs in a row are one vowel where spelling has one.
        at, seen = None, 0
        for c in ipa:
            if c == "ˈ":
                at = seen
            elif c in vowels:
                seen += 1
        places = [i for i, c in enumerate(word) if c in "аеёиоуыэюя"]
        if at is None or seen != len(places) or "ё" in word:
            out.append(word)
        else:
            out.append(word[: places[at]] + "+" + word[places[at] :])
    return out


def telephone(source, target, rng):
    """8000 Hz through a codec, louder or softer, sometimes with noise."""
    gain = rng.choice(["-2", "-6", "-12", "-18"])
    with tempfile.TemporaryDirectory() as d:
        mid = os.path.join(d, "a.wav")
        speed = f"{rng.uniform(0.94, 1.06):.3f}"
        pads = [f"{rng.uniform(0.15, 0.4):.2f}" for _ in range(2)]
        run(["sox", source, "-r", "8000", "-c", "1", "-b", "16", mid, "norm", gain, "tempo", speed, "pad", *pads])
        if rng.random() < 0.4:
            noisy = os.path.join(d, "n.wav")
            level = rng.choice(["0.001", "0.003", "0.006"])
            seconds = run(["soxi", "-D", mid]).strip()
            run(["sox", "-r", "8000", "-n", "-b", "16", os.path.join(d, "p.wav"), "synth", seconds, "pinknoise", "vol", level])
            run(["sox", "-m", "-v", "1", mid, "-v", "1", os.path.join(d, "p.wav"), noisy])
            mid = noisy
        if rng.random() < 0.5:
            law = os.path.join(d, "l.wav")
            run(["sox", mid, "-e", "a-law", "-b", "8", law])
            mid = law
        run(["sox", mid, "-e", "signed-integer", "-b", "16", target])


def speak(job):
    name, voice, words, seed, out = job
    rng = random.Random(seed)
    text = (" " if rng.random() < 0.5 else ", ").join(words)
    target = os.path.join(out, "wav", name + ".wav")
    if os.path.exists(target):
        return name
    with tempfile.TemporaryDirectory() as d:
        raw = os.path.join(d, "raw.wav")
        try:
            if voice == "festival":
                run(["text2wave", "-eval", "(voice_msu_ru_nsh_clunits)", "-o", raw], text)
            elif voice.startswith("espeak-"):
                run(["espeak-ng", "-v", "ru+" + voice[7:], "-s", str(rng.randint(125, 165)), "-w", raw, text])
            else:
                run(["RHVoice-test", "-p", voice, "-r", str(rng.randint(85, 115)), "-t", str(rng.randint(94, 106)), "-o", raw], text)
            telephone(raw, target, rng)
        except subprocess.CalledProcessError:
            return None
    return name


def main():
    out, reader = sys.argv[1], sys.argv[2:]
    os.makedirs(os.path.join(out, "wav"), exist_ok=True)
    os.makedirs(os.path.join(out, "etc"), exist_ok=True)
    rng = random.Random(20261125)
    lines = open(LEXICON, encoding="utf-8", errors="ignore")
    words = sorted({w for w in (l.split("/")[0].strip().lower() for l in lines) if re.fullmatch("[а-яё]{3,12}", w)})
    words = rng.sample(words, 5000)
    jobs = []
    counts = {**NATURAL, "festival": FESTIVAL, **{f"espeak-{v}": n for v, n in ESPEAK.items()}}
    for voice, count in counts.items():
        for i in range(count):
            chosen = [rng.choice(DIGITS + SHORT) for _ in range(5)] if i % 9 == 8 else rng.sample(words, 5)
            jobs.append((f"{voice}_{i:03d}", voice, chosen, rng.random(), out))
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        spoken = set(pool.map(speak, jobs))
    jobs = [j for j in jobs if j[0] in spoken]
    used = sorted({w for j in jobs for w in j[2]})
    readings = run([*reader], "\n".join(stressed(used)) + "\n").strip().split("\n")
    etc = lambda name: open(os.path.join(out, "etc", name), "w", encoding="utf-8")
    with etc("ru_train.fileids") as f:
        f.writelines(j[0] + "\n" for j in jobs)
    with etc("ru_train.transcription") as f:
        f.writelines(f"<s> {' '.join(j[2])} </s> ({j[0]})\n" for j in jobs)
    phones = set()
    with etc("ru.dic") as f:
        for word, reading in zip(used, readings, strict=True):
            phones.update(reading.split())
            f.write(f"{word} {reading}\n")
    with etc("ru.phone") as f:
        f.writelines(p + "\n" for p in sorted(phones | {"SIL"}))
    with etc("ru.filler") as f:
        f.write("<s> SIL\n</s> SIL\n<sil> SIL\n")
    print(f"{len(jobs)} utterances, {len(used)} words, {len(phones)} phones")


if __name__ == "__main__":
    main()
