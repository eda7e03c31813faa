#pragma once
// Whether a sanitizer that makes everything several times slower is in this build (g++ and clang say it
// differently): for the patience of tests.
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define CMS_SANITIZED 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define CMS_SANITIZED 1
#endif
#endif
#ifndef CMS_SANITIZED
#define CMS_SANITIZED 0
#endif
