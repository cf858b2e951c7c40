// Plays the mosaic: WebCodecs, else Media Source Extensions, else (on request) WebRTC. Reconnects for ever.
//
// Each binary message is 24 bytes (media time in s, Unix time of the tick in ms, flags, pictures
// skipped for us) and then one coded picture, or the head of the fragmented MP4.

const IS_KEY = 1, IS_HEAD = 2, HEADER = 24;
const LONGEST_WAIT_MS = 2000;

export const WAYS = { webcodecs: "WebCodecs", mse: "MSE", webrtc: "WebRTC" };

export function bestWay() {
  if (window.isSecureContext && "VideoDecoder" in window) return "webcodecs";
  return "MediaSource" in window ? "mse" : "webrtc";
}

class Unplayable extends Error {}

export class Player extends EventTarget {
  // status: way, codec, playing, message, latencyMs, decoded, dropped, skipped, size
  constructor(screen, way = bestWay()) {
    super();
    this.screen = screen;
    this.status = { way, codec: "", playing: false, message: "Connecting", latencyMs: null, decoded: 0, dropped: 0,
      skipped: 0, connects: 0 };
    this.clock = new ServerClock();
    this.latencies = []; // of the last pictures; the status has their median
    this.wake = () => {};
    this.run();
  }

  async run() {
    let wait = 100;
    for (;;) {
      const began = performance.now();
      const way = this.status.way;
      try {
        await { webcodecs: playWebCodecs, mse: playMse, webrtc: playWebRtc }[way](this);
        this.tell({ playing: false, message: "The picture ended; connecting again" });
      } catch (error) {
        const known = error instanceof Unplayable;
        this.tell({ playing: false, message: known ? error.message : `Not connected (${error.message}); trying again` });
        if (known) wait = LONGEST_WAIT_MS;
      }
      if (performance.now() - began > 5000) wait = 100;
      await new Promise((resolve) => { this.wake = resolve; setTimeout(resolve, wait); });
      wait = Math.min(LONGEST_WAIT_MS, wait * 1.7);
    }
  }

  use(way) {
    if (way === this.status.way) return;
    this.latencies = [];
    this.tell({ way, decoded: 0, dropped: 0, latencyMs: null });
    this.stop?.();
    this.wake();
  }

  tell(change) {
    Object.assign(this.status, change);
    this.dispatchEvent(new Event("status"));
  }

  shown(beganMs, atMs = Date.now()) {
    this.latencies.push(atMs + this.clock.offsetMs - beganMs);
    if (this.latencies.length > 31) this.latencies.shift();
    this.status.latencyMs = [...this.latencies].sort((a, b) => a - b)[this.latencies.length >> 1];
    if (!this.status.playing) this.tell({ playing: true, message: "" });
  }

  put(element) {
    this.screen.replaceChildren(element);
  }
}

class ServerClock {
  // Server time minus ours, from the answer that came back fastest.
  constructor() { this.offsetMs = 0; this.samples = []; }
  add(sentMs, serverMs) {
    const now = Date.now();
    this.samples.push({ trip: now - sentMs, offset: serverMs - (sentMs + now) / 2 });
    if (this.samples.length > 10) this.samples.shift();
    this.offsetMs = this.samples.reduce((a, b) => (b.trip < a.trip ? b : a)).offset;
  }
}

function receive(player, form, onHello, onData) {
  // One connection; resolves when it ends, rejects when a handler does.
  return new Promise((resolve, reject) => {
    const scheme = location.protocol === "https:" ? "wss" : "ws";
    const socket = new WebSocket(`${scheme}://${location.host}/ws/video?form=${form}`);
    socket.binaryType = "arraybuffer";
    const ask = () => socket.readyState === 1 && socket.send(JSON.stringify({ ping: Date.now() }));
    const timer = setInterval(ask, 2000);
    let ready = Promise.resolve();
    const fail = (error) => { clearInterval(timer); socket.close(); reject(error); };
    player.stop = () => { clearInterval(timer); socket.close(); resolve(); };
    socket.onopen = () => {
      player.status.connects += 1;
      for (const after of [0, 200, 500, 1000]) setTimeout(ask, after); // the first answers come while much is starting
    };
    socket.onclose = () => { clearInterval(timer); resolve(); };
    socket.onmessage = ({ data }) => {
      if (typeof data === "string") {
        const said = JSON.parse(data);
        if (said.pong) player.clock.add(said.pong, said.now_ms);
        if (said.hello) {
          player.tell({ codec: said.hello.codec });
          ready = Promise.resolve(onHello(said.hello));
          ready.catch(fail);
        }
        return;
      }
      const view = new DataView(data);
      const picture = { time: view.getFloat64(0, true), beganMs: view.getFloat64(8, true),
        flags: view.getUint32(16, true), data: new Uint8Array(data, HEADER) };
      player.status.skipped = view.getUint32(20, true);
      ready = ready.then(() => onData(picture));
      ready.catch(fail);
    };
  });
}

function refuse(hello) {
  const name = { avc1: "H.264", hvc1: "HEVC", av01: "AV1" }[hello.codec.slice(0, 4)];
  throw new Unplayable(`This browser cannot play ${name} (${hello.codec}). `
    + (name === "H.264" ? "Another browser can: Debian's Chromium, Chrome, Firefox, Safari, Edge."
      : "Set encoder.codec: h264 for a mosaic that every browser plays."));
}

async function playWebCodecs(player) {
  if (!("VideoDecoder" in window)) {
    throw new Unplayable("WebCodecs needs a secure page (https, or localhost); MSE plays here.");
  }
  const canvas = document.createElement("canvas");
  const context = canvas.getContext("2d", { alpha: false, desynchronized: true });
  const began = new Map();
  let decoder, waiting = true, pending = null, drawing = 0, failed = null;

  const draw = () => {
    drawing = 0;
    const frame = pending;
    pending = null;
    if (!frame) return;
    if (canvas.width !== frame.displayWidth || canvas.height !== frame.displayHeight) {
      canvas.width = frame.displayWidth;
      canvas.height = frame.displayHeight;
    }
    context.drawImage(frame, 0, 0);
    player.mediaTime = frame.timestamp / 1e6;
    const at = began.get(frame.timestamp);
    frame.close();
    if (at) player.shown(at);
  };
  const output = (frame) => {
    player.status.decoded += 1;
    if (pending) pending.close(); // only the newest picture is worth drawing
    pending = frame;
    drawing ||= requestAnimationFrame(draw);
    for (const time of began.keys()) { // in the order they came
      if (began.size < 240) break;
      began.delete(time);
    }
  };
  try {
    await receive(player, "annexb", async (hello) => {
      const config = { codec: hello.codec, codedWidth: hello.width, codedHeight: hello.height, optimizeForLatency: true };
      const { supported } = await VideoDecoder.isConfigSupported(config);
      if (!supported) refuse(hello);
      decoder = new VideoDecoder({ output, error: (error) => { failed = error; } });
      decoder.configure(config);
      player.put(canvas);
    }, (picture) => {
      if (failed) throw failed;
      const key = (picture.flags & IS_KEY) !== 0;
      if (decoder.decodeQueueSize > 90 && !key) waiting = true; // too slow here: on from the next keyframe
      if (waiting && !key) { player.status.dropped += 1; return; }
      waiting = false;
      const timestamp = Math.round(picture.time * 1e6);
      began.set(timestamp, picture.beganMs);
      decoder.decode(new EncodedVideoChunk({ type: key ? "key" : "delta", timestamp, data: picture.data }));
    });
  } finally {
    cancelAnimationFrame(drawing);
    pending?.close();
    if (decoder && decoder.state !== "closed") decoder.close();
  }
}

function newVideo() {
  const video = document.createElement("video");
  video.muted = video.autoplay = video.playsInline = true;
  video.disableRemotePlayback = true;
  return video;
}

async function playMse(player) {
  if (!("MediaSource" in window)) throw new Unplayable("This browser has no Media Source Extensions.");
  const video = newVideo(), source = new MediaSource(), began = new Map(), queue = [];
  let buffer = null, tick = 1 / 30, edge = 0;
  video.src = URL.createObjectURL(source);
  const opened = new Promise((resolve) => source.addEventListener("sourceopen", resolve, { once: true }));

  const feed = () => {
    if (!buffer || buffer.updating || source.readyState !== "open") return;
    if (queue.length) {
      const parts = queue.splice(0);
      const whole = new Uint8Array(parts.reduce((size, part) => size + part.length, 0));
      parts.reduce((at, part) => (whole.set(part, at), at + part.length), 0);
      buffer.appendBuffer(whole);
    } else if (buffer.buffered.length && video.currentTime - buffer.buffered.start(0) > 12) {
      buffer.remove(0, video.currentTime - 6);
    }
  };
  const keepUp = () => {
    if (!buffer || !buffer.buffered.length) return;
    const behind = edge - video.currentTime;
    const ranges = buffer.buffered;
    if (behind > 0.6 || behind < -1 || ranges.start(ranges.length - 1) > video.currentTime) {
      video.currentTime = Math.max(edge - tick, ranges.start(ranges.length - 1));
    } else {
      video.playbackRate = behind > 2.2 * tick ? (behind > 5 * tick ? 1.25 : 1.07) : behind < 0.7 * tick ? 0.95 : 1;
    }
    if (video.paused) video.play().catch(() => {});
  };
  const onFrame = (now, meta) => {
    player.mediaTime = meta.mediaTime;
    let at = null;
    for (const [time, ms] of began) {
      if (time > meta.mediaTime + tick / 2) break;
      at = ms;
      began.delete(time);
    }
    const quality = video.getVideoPlaybackQuality();
    player.status.decoded = quality.totalVideoFrames;
    player.status.dropped = quality.droppedVideoFrames;
    if (at) player.shown(at, performance.timeOrigin + Math.max(now, meta.expectedDisplayTime));
    if (video.src) video.requestVideoFrameCallback(onFrame);
  };
  video.requestVideoFrameCallback?.(onFrame);
  if (!video.requestVideoFrameCallback) {
    video.addEventListener("timeupdate", () => player.tell({ playing: true, message: "" }));
  }
  try {
    await receive(player, "fmp4", async (hello) => {
      const type = `video/mp4; codecs="${hello.codec}"`;
      if (!MediaSource.isTypeSupported(type)) refuse(hello);
      tick = 1 / hello.fps;
      player.put(video);
      await opened;
      buffer = source.addSourceBuffer(type);
      buffer.addEventListener("updateend", () => { feed(); keepUp(); });
    }, (picture) => {
      if (video.error) throw new Error(video.error.message || "the decoder failed");
      if (!(picture.flags & IS_HEAD)) {
        began.set(picture.time, picture.beganMs);
        if (began.size > 600) began.delete(began.keys().next().value);
        edge = Math.max(edge, picture.time);
      }
      queue.push(picture.data);
      feed();
    });
  } finally {
    URL.revokeObjectURL(video.src);
    video.removeAttribute("src");
    video.load();
  }
}

async function playWebRtc(player) {
  if (!("RTCPeerConnection" in window)) throw new Unplayable("This browser has no WebRTC.");
  const peer = new RTCPeerConnection(), video = newVideo();
  let stopped = false, place = null;
  try {
    peer.addTransceiver("video", { direction: "recvonly" });
    peer.ontrack = ({ receiver, streams, track }) => {
      if ("jitterBufferTarget" in receiver) receiver.jitterBufferTarget = 0;
      video.srcObject = streams[0] ?? new MediaStream([track]);
    };
    await peer.setLocalDescription(await peer.createOffer());
    await new Promise((resolve) => {
      const check = () => peer.iceGatheringState === "complete" && resolve();
      peer.addEventListener("icegatheringstatechange", check);
      setTimeout(resolve, 1500);
      check();
    });
    const answer = await fetch("/whep", {
      method: "POST", headers: { "Content-Type": "application/sdp" }, body: peer.localDescription.sdp });
    if (!answer.ok) throw new Unplayable((await answer.json()).error);
    place = answer.headers.get("Location");
    await peer.setRemoteDescription({ type: "answer", sdp: await answer.text() });
    player.put(video);
    player.status.connects += 1;
    player.tell({ codec: "H.264" });
    const { latency_p50_ms: encode } = await (await fetch("/api/state")).json();
    let last = { frames: 0, at: performance.now() };
    while (!stopped && !["failed", "closed"].includes(peer.connectionState)) {
      await new Promise((resolve) => {
        player.stop = () => { stopped = true; resolve(); };
        setTimeout(resolve, 250);
      });
      let trip = 0;
      for (const row of (await peer.getStats()).values()) {
        if (row.type === "candidate-pair" && row.nominated) trip = row.currentRoundTripTime ?? 0;
        if (row.type !== "inbound-rtp" || row.kind !== "video" || !row.framesDecoded) continue;
        player.status.decoded = row.framesDecoded;
        player.status.dropped = row.framesDropped ?? 0;
        // The browser tells no picture's age: what it waited, plus what the server measures.
        const waited = (row.jitterBufferDelay / (row.jitterBufferEmittedCount || 1) + row.totalDecodeTime / row.framesDecoded
          + trip / 2) * 1000;
        if (row.framesDecoded > last.frames) {
          last = { frames: row.framesDecoded, at: performance.now() };
          player.status.latencyMs = waited + encode;
          if (!player.status.playing) player.tell({ playing: true, message: "" });
        }
      }
      if (performance.now() - last.at > 5000) return; // the server went without a word
    }
  } finally {
    peer.close();
    video.srcObject = null;
    if (place) fetch(place, { method: "DELETE" }).catch(() => {});
  }
}
