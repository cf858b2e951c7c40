// Nothing but the picture, full-size; ?way=webcodecs|mse|webrtc chooses how. A click is full screen.
import { Player, WAYS } from "/player.js";

const asked = new URLSearchParams(location.search).get("way");
const message = document.getElementById("message");
const player = new Player(document.getElementById("screen"), Object.hasOwn(WAYS, asked) ? asked : undefined);
player.addEventListener("status", () => { message.textContent = player.status.message; });
document.body.addEventListener("click", () => document.documentElement.requestFullscreen?.().catch(() => {}));
navigator.wakeLock?.request("screen").catch(() => {});
window.player = player;
