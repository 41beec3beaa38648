import org.jetbrains.kotlin.gradle.dsl.JvmTarget

plugins {
    alias(libs.plugins.android.application)
    alias(libs.plugins.kotlin.android)
}

// The model of debug builds, such as `llama-export --target onnx --model demo` makes: -PdemoBundle=FOLDER.
val demoBundle = file(providers.gradleProperty("demoBundle").getOrElse("$rootDir/../../demo/onnx"))
val demoAssets = layout.buildDirectory.dir("demo-assets").get().asFile
val copyDemo = tasks.register<Sync>("copyDemo") {
    from(demoBundle)
    into(demoAssets.resolve("demo"))
    doFirst {
        if (!demoBundle.isDirectory) logger.warn("$demoBundle is missing: the app will begin without a model")
    }
}

android {
    namespace = "org.llamaexport.app"
    compileSdk = libs.versions.compileSdk.get().toInt()
    defaultConfig {
        applicationId = "org.llamaexport.app"
        minSdk = libs.versions.minSdk.get().toInt()
        targetSdk = libs.versions.compileSdk.get().toInt()
        versionCode = 1
        versionName = "0.1.0"
        ndk {
            abiFilters += listOf("arm64-v8a", "x86_64")
        }
    }
    compileOptions {
        sourceCompatibility = JavaVersion.VERSION_11
        targetCompatibility = JavaVersion.VERSION_11
    }
    sourceSets["debug"].assets.srcDir(demoAssets)
    buildFeatures {
        buildConfig = true
    }
    packaging {
        // Mapped from the APK; unpacked they would be there twice.
        jniLibs.useLegacyPackaging = false
        // Both runtimes bring it.
        jniLibs.pickFirsts += "**/libc++_shared.so"
    }
}

kotlin {
    compilerOptions {
        jvmTarget = JvmTarget.JVM_11
    }
}

tasks.named("preBuild") { dependsOn(copyDemo) }

dependencies {
    implementation(project(":core"))
    implementation(project(":engine-onnx"))
    implementation(project(":engine-executorch"))
    implementation(libs.coroutines.core)
}
