// JsSIP with buttons for a test: what it does stands in the attributes of the page's body.
import JsSIP from "jssip";

const wanted = new URLSearchParams(location.hash.slice(1));
const shown = document.body.dataset;
const media = { audio: { echoCancellation: false, noiseSuppression: false, autoGainControl: false }, video: wanted.has("video") };
const peer = { iceServers: [] };

const ua = new JsSIP.UA({
  sockets: [new JsSIP.WebSocketInterface(wanted.get("ws"))],
  uri: wanted.get("uri"),
  password: wanted.get("password"),
  register: true,
});
let session = null;

/** Plays the other party, and shows the strongest frequency in what it says. */
function listen(stream) {
  const player = new Audio();
  player.srcObject = stream;
  player.play();
  const context = new AudioContext();
  const finder = new AnalyserNode(context, { fftSize: 8192, smoothingTimeConstant: 0 });
  context.createMediaStreamSource(stream).connect(finder);
  const powers = new Float32Array(finder.frequencyBinCount);
  const timer = setInterval(() => {
    finder.getFloatFrequencyData(powers);
    const best = powers.indexOf(Math.max(...powers));
    if (powers[best] > -50) shown.hears = Math.round((best * context.sampleRate) / finder.fftSize);
  }, 100);
  session.on("ended", () => clearInterval(timer));
}

function watch(connection) {
  window.peer = connection;
  connection.addEventListener("track", (event) => {
    if (event.track.kind === "audio") listen(new MediaStream([event.track]));
    else see(new MediaStream([event.track]));
  });
}

/** Shows the size of the pictures that come. */
function see(stream) {
  const screen = document.createElement("video");
  screen.muted = true;
  screen.srcObject = stream;
  screen.play();
  screen.addEventListener("resize", () => (shown.sees = `${screen.videoWidth}x${screen.videoHeight}`));
  document.body.append(screen);
}

ua.on("registered", () => (shown.state = "registered"));
ua.on("registrationFailed", (e) => (shown.state = `not registered: ${e.cause}`));
ua.on("newRTCSession", ({ session: fresh, originator }) => {
  session = fresh;
  fresh.on("peerconnection", ({ peerconnection }) => watch(peerconnection));
  if (fresh.connection) watch(fresh.connection);
  fresh.on("sending", () => (shown.state = "calling"));
  fresh.on("progress", () => (shown.state = "ringing"));
  fresh.on("accepted", () => (shown.state = "accepted"));
  fresh.on("peerconnection:setremotedescriptionfailed", (e) => (shown.trouble = e));
  fresh.on("confirmed", () => (shown.state = "talking"));
  fresh.on("ended", (e) => (shown.state = `ended: ${e.originator}`));
  fresh.on("failed", (e) => (shown.state = `failed: ${e.cause}`));
  if (originator === "remote") fresh.answer({ mediaConstraints: media, pcConfig: peer });
});

window.dial = (number) => ua.call(number, { mediaConstraints: media, pcConfig: peer });
window.hangUp = () => session.terminate();
ua.start();
