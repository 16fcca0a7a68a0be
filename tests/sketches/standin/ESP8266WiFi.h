// A network that is always there.
#pragma once
#define WIFI_STA 1

struct Network {
  void mode(int) {}
  void begin(const char *, const char *) {}
  int RSSI() { return -42; }
};
extern Network WiFi;
