// Several JsSIP phones on one page, each with one coding and a tone of its own; they answer by themselves.
import JsSIP from "jssip";

const context = new AudioContext();
const tick = 100;

/** A description whose audio has one coding alone. */
function only(coding, sdp) {
  const lines = sdp.split("\r\n");
  const names = { PCMU: ["0"], PCMA: ["8"], G722: ["9"] }[coding] || [];
  for (const line of lines) {
    const map = /^a=rtpmap:(\d+) ([^/]+)\//.exec(line);
    if (map && map[2].toLowerCase() === coding.toLowerCase()) names.push(map[1]);
  }
  const left = (line) => {
    const of = /^a=(?:rtpmap|fmtp|rtcp-fb):(\d+) /.exec(line);
    return !of || names.includes(of[1]);
  };
  const audio = (line) => line.replace(/^(m=audio \d+ \S+).*/, (_, head) => `${head} ${[...new Set(names)].join(" ")}`);
  return lines.filter(left).map(audio).join("\r\n");
}

/** A stream that says a tone. */
function saying(frequency) {
  const out = new MediaStreamAudioDestinationNode(context);
  const level = new GainNode(context, { gain: 0.25 });
  const tone = new OscillatorNode(context, { frequency });
  tone.connect(level).connect(out);
  tone.start();
  return out.stream;
}

function phone({ user, coding, frequency, ws, tones }) {
  const stream = saying(frequency);
  const own = { state: "new", heard: [] };
  const settings = { mediaStream: stream, pcConfig: { iceServers: [] } };
  let session = null;
  const ua = new JsSIP.UA({
    sockets: [new JsSIP.WebSocketInterface(ws)],
    uri: `sip:${user}@voip.test`,
    password: "Geheim77",
    register: true,
  });

  /** Notes for each tenth of a second the tones that stand out in what the other party says. */
  function listen(track) {
    const heard = new MediaStream([track]);
    const player = new Audio();
    player.srcObject = heard;
    player.play();
    const finder = new AnalyserNode(context, { fftSize: 4096, smoothingTimeConstant: 0 });
    context.createMediaStreamSource(heard).connect(finder);
    const powers = new Float32Array(finder.frequencyBinCount);
    const loudest = (from, to) => Math.max(...powers.slice(from, to));
    const timer = setInterval(() => {
      finder.getFloatFrequencyData(powers);
      const stands = (f) => {
        const bin = Math.round((f * finder.fftSize) / context.sampleRate);
        const at = loudest(bin - 1, bin + 2);
        return at > -50 && at > loudest(bin - 6, bin - 4) + 10 && at > loudest(bin + 5, bin + 7) + 10;
      };
      own.heard.push(tones.filter(stands));
    }, tick);
    session.on("ended", () => clearInterval(timer));
    session.on("failed", () => clearInterval(timer));
  }

  function watch(connection) {
    connection.addEventListener("track", (event) => event.track.kind === "audio" && listen(event.track));
  }

  ua.on("registered", () => (own.state = "registered"));
  ua.on("registrationFailed", (e) => (own.state = `not registered: ${e.cause}`));
  ua.on("newRTCSession", ({ session: fresh, originator }) => {
    session = fresh;
    own.heard = [];
    fresh.on("sdp", (e) => (e.sdp = only(coding, e.sdp)));
    fresh.on("peerconnection", ({ peerconnection }) => watch(peerconnection));
    if (fresh.connection) watch(fresh.connection);
    fresh.on("confirmed", () => (own.state = "talking"));
    fresh.on("ended", (e) => (own.state = `ended: ${e.cause}`));
    fresh.on("failed", (e) => (own.state = `failed: ${e.cause}`));
    if (originator === "remote") fresh.answer(settings);
  });
  ua.start();
  return {
    own,
    dial: (number) => void ua.call(number, settings),
    hangUp: () => session.terminate(),
    hold: () => session.hold(),
    resume: () => session.unhold(),
  };
}

window.phones = {};
window.have = (wanted) => void (window.phones[wanted.user] = phone(wanted));
