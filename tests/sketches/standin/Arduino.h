// What a sketch uses of an Arduino core, on a POSIX system: enough to compile it with warnings, and to run it.
#pragma once
#include <algorithm>
#include <cstdarg>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <string>

typedef std::string String;
using std::max;

inline unsigned long millis() {
  timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return (unsigned long)(now.tv_sec * 1000 + now.tv_nsec / 1000000);
}

inline long random(long below) { return std::rand() % below; }

struct SerialPort {
  void begin(unsigned long) {}
  void println(const char *text) { std::puts(text), std::fflush(stdout); }
  __attribute__((format(printf, 2, 3))) void printf(const char *format, ...) {
    va_list rest;
    va_start(rest, format);
    std::vprintf(format, rest);
    va_end(rest);
    std::fflush(stdout);
  }
};
extern SerialPort Serial;

void configTime(long, int, const char *);
void setup();
void loop();
